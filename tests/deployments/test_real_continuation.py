"""Is a stream of a real engine that is broken after each few tokens what it would have been, to the letter?

One engine, greedy in float32, stands for all replicas: the router loses its link to it and finds it again as another.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tokenizers import Tokenizer

from headrace.fetching import resolve
from tests.deployments.test_real_engine import ANSWERED, chat, said, text
from tests.deployments.two_servers import Pair, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SAME = [
    "several turns", "a stop string", "stop strings", "a stop string that is kept", "stop tokens",
    "special tokens shown", "no stop at the end mark", "a least length", "a repetition penalty", "one token",
    "a prompt that just fits", "no special tokens",
]  # fmt: skip
BIASED = "é日本🚰«»ß"
"""Of which the model is made to say much: its tokens are bytes of characters."""


@pytest.fixture
def cut(pair: Pair) -> Iterator[Any]:
    def cut(every_tokens: int) -> dict[str, Any]:
        """Has links cut from now on; the ids that came before, and the streams continued until now."""
        return pair.ours.client.get(f"/cut/{every_tokens}").json()

    cut(0)
    yield cut
    cut(0)


def check(pair: Pair, cut: Any, case: tuple[str, dict[str, Any]], every_tokens: tuple[int, ...]) -> None:
    whole = pair.ours.ask(*case, stream=True)
    assert whole.status == 200
    before = cut(every_tokens[0])
    ids = before["ids"]
    for place, every in enumerate(every_tokens):
        assert pair.ours.ask(*case, stream=True) == whole
        then = cut(every_tokens[place + 1] if place + 1 < len(every_tokens) else 0)
        assert then["ids"] == ids
        broken = then["continuations"] - before["continuations"]
        assert (len(ids) > every) <= broken <= (len(ids) - 1) // every
        before = then
    ((_, answered, finish, _),) = whole.choices
    shown = case[1].get("skip_special_tokens") is False
    decoded = Tokenizer.from_file(str(resolve("tiny") / "tokenizer.json")).decode(ids, skip_special_tokens=not shown)
    assert decoded.startswith(answered)
    assert finish == "stop" or decoded.rstrip("�") == answered.rstrip("�")


@pytest.mark.parametrize("case", SAME)
def test_a_broken_stream_is_the_same(pair: Pair, cut: Any, case: str) -> None:
    path, body = ANSWERED[case]
    limit = body.get("max_tokens") or 24
    check(pair, cut, (path, body | {"max_tokens": min(limit, 60)} if "min_tokens" not in body else body), (3, 7))


@pytest.mark.parametrize("content", ["What is a class?", "naïve 🚰 日本 «é»", "Why?"])
def test_a_stream_that_is_broken_after_each_token_is_the_same(pair: Pair, cut: Any, content: str) -> None:
    check(pair, cut, chat(messages=[said("user", content)], max_tokens=30, stop=["never this"]), (1,))


def test_a_character_that_was_cut_in_two_is_whole(pair: Pair, cut: Any) -> None:
    ids = pair.ours.client.post("/tokenize", json={"prompt": BIASED, "add_special_tokens": False}).json()["tokens"]
    bias = {str(token_id): 12 for token_id in ids}
    case = text(prompt=BIASED, logit_bias=bias, max_tokens=40)
    check(pair, cut, case, (1, 2))
    ((_, answered, _, _),) = pair.ours.ask(*case).choices
    assert not answered.isascii()


def test_ids_continue_where_several_streams_break_at_once(pair: Pair, cut: Any) -> None:
    """More of them than the engine runs at once."""
    cases = [text(prompt=f"A {word} is", max_tokens=50) for word in ("class", "list", "string", "module", "name")]
    whole = [pair.ours.ask(*case, stream=True) for case in cases]
    before = cut(20)["continuations"]
    with ThreadPoolExecutor(len(cases)) as threads:
        for _ in range(3):
            assert list(threads.map(lambda case: pair.ours.ask(*case, stream=True), cases)) == whole
    assert cut(0)["continuations"] - before >= 20
    wait_for(lambda: pair.ours.metric("open_requests") == 0)
