"""Are rows of each kind of file read as they are, and partitions each by itself what the whole is?"""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from deployments.openai_wire import ChatRequest, CompletionRequest
from headrace.failure import Failure
from headrace.offline.rows import BadRow, asks, request
from headrace.offline.table import Row, cut, files, read

TEXTS = ["plain", 'with "quotes", commas', "two\nlines\r\nor three", "日本 🚰 \u2028 \x0b", "", "x" * 200_000]


def rows_of(path: Path, size: int) -> list[Row]:
    table, partitions = cut(path, size, 7)
    assert [one.number for one in partitions] == list(range(7, 7 + len(partitions)))
    assert all(len(read(one)) == one.rows <= size for one in partitions)
    found = list(chain.from_iterable(map(read, partitions)))
    assert table.rows == len(found)
    return found


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]))
            table.writeheader()
            table.writerows(rows)
    else:
        parquet.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=3)


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize("size", [1, 2, 4, 100])
def test_partitions_hold_every_row_once_in_order_and_as_it_was(tmp_path: Path, suffix: str, size: int) -> None:
    rows = [{"prompt": text, "n": str(number)} for number, text in enumerate(TEXTS * 2)]
    path = tmp_path / f"in.{suffix}"
    write(path, rows)
    found = rows_of(path, size)
    assert [row.fields for row in found] == rows
    assert [row.number for row in found] == list(range(1, len(rows) + 1))
    assert not any(row.wrong for row in found)


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(st.lists(st.tuples(text, text), min_size=1, max_size=12), st.integers(1, 5))
def test_any_csv_is_cut_between_its_records(tmp_path_factory: pytest.TempPathFactory, cells: Any, size: int) -> None:
    path = tmp_path_factory.mktemp("csv") / "in.csv"
    write(path, [{"a": one, "b": other} for one, other in cells])
    with path.open(newline="") as file:
        expected = list(csv.DictReader(file, strict=True))
    assert [row.fields for row in rows_of(path, size)] == expected


def test_lines_that_can_t_be_read_are_rows_with_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'\n{"prompt": "a"}\n{"prompt": \n\n[1]\n\xff\n{"prompt": "b"}')
    found = rows_of(path, 2)
    assert [(row.number, row.fields, bool(row.wrong)) for row in found] == [
        (2, {"prompt": "a"}, False), (3, {}, True), (5, {}, True), (6, {}, True), (7, {"prompt": "b"}, False),
    ]  # fmt: skip
    path = tmp_path / "in.csv"
    path.write_text("a,b\n1,2\n3\n4,5,6\n7,8\n")
    assert [(row.number, row.wrong) for row in rows_of(path, 2)] == [
        (1, ""), (2, "1 cells for 2 columns"), (3, "3 cells for 2 columns"), (4, ""),
    ]  # fmt: skip


def test_a_table_knows_its_columns_and_what_it_is(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_bytes(b"\xef\xbb\xbfprompt,b\nx,y\n")
    table, (partition,) = cut(path, 10, 0)
    assert (table.columns, table.rows, len(table.hash)) == (("prompt", "b"), 1, 64)
    assert read(partition)[0].fields == {"prompt": "x", "b": "y"}
    assert asdict(partition)["begin"] == len(b"\xef\xbb\xbfprompt,b\n")


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("in.txt", b"x", "should be JSON lines, CSV or Parquet"),
        ("in.parquet", b"no parquet at all, but long enough", "in.parquet: "),
        ("in.csv", b'a,b\n"x\n', "in.csv: "),
        ("in.csv", b"a,a\nx,y\n", "two columns of one name"),
        ("in.csv", b"a\nx\n\xff\n", "line 3 is no UTF-8"),
    ],
)
def test_a_file_that_is_none_is_said_in_one_line(tmp_path: Path, name: str, content: bytes, line: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Failure) as refused:
        [cut(path, 10, 0) for path in files(str(tmp_path / name))]
    assert line in str(refused.value)
    assert (len(str(refused.value).splitlines()), refused.value.exit_code) == (1, 2)


def test_a_folder_is_its_files_of_one_kind(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl", "README"):
        (tmp_path / name).write_text("{}\n")
    assert [path.name for path in files(str(tmp_path))] == ["a.jsonl", "b.jsonl"]
    (tmp_path / "c.csv").write_text("a\n")
    with pytest.raises(Failure, match="of one kind, holds csv and jsonl"):
        files(str(tmp_path))
    with pytest.raises(Failure, match="no such file"):
        files(str(tmp_path / "none"))


def ask(columns: tuple[str, ...], **asked: Any) -> Any:
    usual: dict[str, Any] = {"prompt": None, "messages": None, "chat": False, "sampling": {"max_tokens": 9}}
    return asks(columns, **usual | asked)


def test_rows_ask_by_their_columns(tmp_path: Path) -> None:
    said = [{"role": "user", "content": "hello", "name": None}]
    for found in (
        request({"prompt": "hello"}, ask(("prompt",), chat=True)),
        request({"messages": said}, ask(("prompt", "messages"))),
        request({"m": json.dumps(said)}, ask(("m",), messages="m")),
        request({"custom_id": "1", "body": {"model": "any", "messages": said}}, ask(("custom_id", "body"))),
    ):
        assert isinstance(found, ChatRequest)
        assert (found.messages[0].content, found.max_tokens) == ("hello", 9)
    text = request({"q": "hello"}, ask(("q",), prompt="q", sampling={"max_tokens": 3, "top_p": 0.5}))
    assert isinstance(text, CompletionRequest)
    assert (text.prompt, text.max_tokens, text.top_p) == ("hello", 3, 0.5)
    own = request({"body": {"prompt": [1, 2], "max_tokens": 4, "stream": True}}, ask(("custom_id", "body")))
    assert isinstance(own, CompletionRequest)
    assert (own.prompts(), own.max_tokens, own.stream) == ([[1, 2]], 4, False)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({}, "no 'body'"),
        ({"body": "{"}, "no JSON"),
        ({"body": [1]}, "'body' should be an object"),
        ({"body": {"messages": []}}, "messages"),
        ({"body": {"messages": [{"role": "user", "content": 3}]}}, "content"),
        ({"body": {"prompt": "x", "n": 2}}, "asks for 2 answers: a row has one"),
        ({"body": {"messages": [{"role": "user"}], "logprobs": True}}, "asks for more than text"),
        ({"body": {"messages": [{"role": "user"}], "tools": [{}]}}, "tools"),
        ({"body": {"prompt": "x", "max_tokens": -1}}, "max_tokens"),
        ({"body": {"prompt": "x", "colour": 1}}, "colour"),
    ],
)
def test_a_row_that_can_t_be_asked_says_why(fields: dict[str, Any], line: str) -> None:
    with pytest.raises(BadRow, match=line):
        request(fields, ask(("custom_id", "body")))


@pytest.mark.parametrize(
    ("columns", "asked", "line"),
    [
        (("text",), {}, "there is no column `prompt`, `messages` or `body`"),
        (("text",), {"prompt": "texts"}, "there is no column 'texts'; there are: text"),
        (("a", "b"), {"prompt": "a", "messages": "b"}, "take one of them"),
        (("messages",), {"chat": True}, "--chat goes with a column of prompts"),
        (("prompt",), {"sampling": {"topp": 1}}, "--sampling: "),
        (("prompt",), {"sampling": {"temperature": "hot"}}, "--sampling: "),
    ],
)
def test_what_the_options_can_t_mean_is_said_in_one_line(
    columns: tuple[str, ...], asked: dict[str, Any], line: str
) -> None:
    with pytest.raises(Failure) as refused:
        ask(columns, **asked)
    assert line in str(refused.value)
    assert (len(str(refused.value).splitlines()), refused.value.exit_code) == (1, 2)
