"""Is every line of an input file either asked or named as wrong, whatever it holds?"""

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.batches.input import Input, WrongLine, read_line
from deployments.batches.line_texts import answered
from deployments.in_process import Answer
from tests.deployments.batch_files import chat, text_of
from tests.deployments.http_served import CHAT


def read(text: bytes, most_lines: int = 1000, most_bytes: int = 1000) -> Input:
    told = Input(CHAT, "tenant", most_lines, most_bytes)
    for _ in told.read(io.BytesIO(text)):
        pass
    return told


def line(name: str = "a", **fields: Any) -> bytes:
    return json.dumps(chat(name, "x") | fields).encode()


LINES = st.one_of(
    st.binary(max_size=60).filter(lambda text: b"\n" not in text),
    st.sampled_from("abcd").map(line),
    st.just(b"  "),
    st.just(line("long", body={"messages": "x" * 1100})),
)


@given(st.lists(LINES, max_size=12), st.booleans())
def test_each_line_that_holds_something_is_asked_or_named_once(lines: list[bytes], ended: bool) -> None:
    text = b"\n".join(lines) + (b"\n" if ended else b"")
    told = read(text)
    numbers = sorted([one.number for one in told.lines] + [one.number for one in told.wrong])
    assert numbers == [number for number, one in enumerate(lines, 1) if one.strip()]
    told.put_in_order()
    ids = [read_line(text[one.offset : one.offset + one.size], CHAT)[0] for one in told.lines]
    ids += [one.custom_id for one in told.wrong if one.custom_id is not None]
    assert len(ids) == len(set(ids))


def test_what_is_wrong_with_a_line_is_named() -> None:
    cases: list[tuple[bytes, str]] = [
        (b"{", "invalid_json_line"),
        (b"[]", "invalid_json_line"),
        (line(method="GET"), "invalid_json_line"),
        (b'{"custom_id": 3, "method": "POST"}', "invalid_json_line"),
        (line(""), "missing_custom_id"),
        (line(url="/v1/embeddings"), "mismatched_url"),
        (line(body=[]), "invalid_body"),
        (line(body={"stream": True}), "invalid_body"),
    ]
    for text, code in cases:
        with pytest.raises(WrongLine) as wrong:
            read_line(text, CHAT)
        assert wrong.value.code == code


def test_a_mark_at_the_begin_and_the_line_ends_of_other_systems_are_no_fault() -> None:
    told = read(b"\xef\xbb\xbf" + line("a") + b"\r\n" + line("b") + b"\r\n")
    assert ([one.number for one in told.lines], told.wrong, told.model) == ([1, 2], [], "tiny")


def test_a_file_with_too_many_lines_is_read_no_further() -> None:
    told = read(b"".join(line(str(number)) + b"\n" for number in range(50)), most_lines=10)
    assert told.too_many
    assert told.total == 11


def test_lines_that_begin_alike_are_asked_after_each_other() -> None:
    start = "the same beginning " * 60
    texts = [f"{start}{number}" if number % 2 else f"{number} {start}" for number in range(10)]
    told = read(text_of(chat(str(place), text) for place, text in enumerate(texts)), most_bytes=10_000)
    told.put_in_order()
    odd = [(one.number - 1) % 2 for one in told.lines]
    first = odd.index(1)
    assert odd[first : first + 5] == [1] * 5


def test_an_answer_stands_on_one_line_or_is_named_as_no_json() -> None:
    kept, text = answered("batch_1", 7, "a", Answer(200, body=b'{\n "a": [1,\n 2]}'))
    assert (kept, text.count(b"\n")) == (True, 1)
    assert json.loads(text)["response"] == {"status_code": 200, "request_id": "batch_req_1_7", "body": {"a": [1, 2]}}
    kept, text = answered("batch_1", 7, "a", Answer(200, body=b"\x00\x01"))
    assert (kept, json.loads(text)["error"]["code"], json.loads(text)["custom_id"]) == (False, "no_json", "a")
    assert not answered("batch_1", 7, "a", Answer(400, body=b"{}"))[0]
