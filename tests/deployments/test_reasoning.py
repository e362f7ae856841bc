"""Does a model that thinks before it answers say both, apart, as on vLLM's own server?

The trained test model does not think by itself: a pattern makes it write in the form that the parser reads.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from headrace.fetching import resolve
from tests.deployments import forwarded, two_servers
from tests.deployments.forwarded import STREAMED, Case
from tests.deployments.two_servers import Pair

pytestmark = [pytest.mark.prove, pytest.mark.timeout(400)]

ENGINE = {
    **{"dtype": "float32", "max_model_len": 2048, "max_num_seqs": 8, "kv_cache_memory_bytes": 64 << 20},
    **{"reasoning_parser": "granite", "structured_outputs_config": {"enable_in_reasoning": True}},
}
PATTERN = "Here is my thought process: [a-z]{2,9}( [a-z]{2,9}){3} Here is my response: [a-z]{2,9} [a-z]{2,9}"
THINKS: dict[str, Any] = {"structured_outputs": {"regex": PATTERN}, "max_tokens": 120}

CASES: dict[str, Case] = {
    "thoughts and an answer": forwarded.chat(**THINKS),
    "thoughts and an answer, streamed": forwarded.chat(**THINKS, **STREAMED),
    "choices with thoughts": forwarded.chat(n=2, temperature=0.8, seed=3, **THINKS),
    "thoughts kept to itself": forwarded.chat(include_reasoning=False, **THINKS),
    "thoughts that are cut off": forwarded.chat(**THINKS | {"max_tokens": 20}),
    "no thoughts": forwarded.chat(),
    "no thoughts, streamed": forwarded.chat(**STREAMED),
    "log-probabilities of thoughts": forwarded.chat(logprobs=True, **THINKS),
    "a response": forwarded.response(),
    "a response, streamed": forwarded.response(stream=True),
    "a message": forwarded.message(),
}


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with two_servers.pair(resolve("tiny"), ENGINE) as servers:
        yield servers


@pytest.mark.parametrize("case", CASES)
def test_what_was_thought_and_what_was_said_are_vllm_s_own(pair: Pair, case: str) -> None:
    ours, theirs = (server.ask_exactly(CASES[case]) for server in (pair.ours, pair.theirs))
    assert ours.status == 200, ours.said
    assert ours == theirs


def test_thoughts_and_answer_come_apart(pair: Pair) -> None:
    """Or the comparison above would say nothing of reasoning."""
    path, body = CASES["thoughts and an answer"]
    message = pair.ours.client.post(path, json=body).json()["choices"][0]["message"]
    assert len(message["reasoning"].split()) == 4
    assert len(message["content"].split()) == 2
