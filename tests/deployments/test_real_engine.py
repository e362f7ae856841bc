"""Does the serving path, with a real engine, answer as vLLM's own server does, and leave nothing behind?

Both servers run the same trained model in float32, so that greedy answers can be compared letter for letter.
"""

from typing import Any

import pytest

from tests.deployments import forwarded
from tests.deployments.two_servers import Pair, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
QUESTION = [{"role": "user", "content": "What is a class?"}]
CONTEXT_TOKENS = 2048


def chat(**fields: Any) -> tuple[str, dict[str, Any]]:
    return CHAT, {"model": "tiny", "messages": QUESTION, "temperature": 0, "max_tokens": 24} | fields


def text(**fields: Any) -> tuple[str, dict[str, Any]]:
    return TEXT, {"model": "tiny", "prompt": "The import statement", "temperature": 0, "max_tokens": 24} | fields


def said(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


ANSWERED = {
    "a chat": chat(max_tokens=64),
    "a chat without a limit": chat(messages=[said("user", "A class. " * 660)], max_tokens=None),
    "the newer name of the limit": chat(max_completion_tokens=7),
    "a system message": chat(messages=[said("system", "Be brief."), *QUESTION]),
    "several turns": chat(messages=[*QUESTION, said("assistant", "A type."), said("user", "Why?")]),
    "a named user": chat(messages=[said("user", "x", name="ann")]),
    "parts": chat(messages=[said("user", [{"type": "text", "text": part} for part in ("What", "is it?")])]),
    "an empty message": chat(messages=[said("user", "")]),
    "multi-byte text": chat(messages=[said("user", "naïve 🚰 日本 «é»")], max_tokens=60),
    "multi-byte output": text(prompt="«é» 日本 🚰", temperature=2.0, seed=11, max_tokens=60),
    "a stop string": chat(stop="the", max_tokens=200),
    "stop strings": chat(stop=["never this", " of"], max_tokens=200),
    "a stop string that is kept": chat(stop=["the"], include_stop_str_in_output=True, max_tokens=200),
    "stop tokens": chat(stop_token_ids=list(range(260, 300)), max_tokens=200),
    "no stop at the end mark": chat(ignore_eos=True, max_tokens=120),
    "a least length": chat(min_tokens=50, max_tokens=60),
    "special tokens shown": chat(skip_special_tokens=False, max_tokens=120),
    "no generation prompt": chat(add_generation_prompt=False),
    "a message to go on with": chat(
        messages=[*QUESTION, said("assistant", "A class is")],
        continue_final_message=True,
        add_generation_prompt=False,
    ),
    "special tokens added": chat(add_special_tokens=True),
    "a seed": chat(temperature=1, seed=3),
    "choices by a seed": chat(n=2, temperature=0.9, seed=7),
    "top k": chat(temperature=1, seed=3, top_k=5),
    "top p": chat(temperature=1, seed=3, top_p=0.5),
    "min p": chat(temperature=1, seed=3, min_p=0.2),
    "penalties": chat(presence_penalty=1.5, frequency_penalty=0.5, max_tokens=40),
    "a repetition penalty": chat(repetition_penalty=1.3, max_tokens=40),
    "a bias": chat(logit_bias={"300": 50, "301": -100}, max_tokens=10),
    "a text": text(max_tokens=64),
    "a text without a limit": text(max_tokens=None),
    "texts": text(prompt=["The import statement", "A list", "naïve 日本"]),
    "token ids": text(prompt=[5, 6, 7, 300]),
    "lists of token ids": text(prompt=[[5, 6, 7, 300], [9]]),
    "choices of texts": text(prompt=["a", "b"], n=2, temperature=0.7, seed=5, max_tokens=8),
    "no special tokens": text(add_special_tokens=False),
    "one token": text(max_tokens=1),
    "a stop at a line's end": text(stop=["\n"], max_tokens=100),
    "a prompt that just fits": text(prompt=[5] * (CONTEXT_TOKENS - 8), max_tokens=8),
}

REFUSED = {
    "a negative temperature": chat(temperature=-1),
    "a share above one": chat(top_p=2),
    "a wrong top k": chat(top_k=-5),
    "a wrong penalty": chat(presence_penalty=5),
    "greedy choices that can't differ": chat(n=2),
    "no choices": chat(n=0),
    "no tokens of a chat": chat(max_tokens=0),
    "more than the context": chat(max_tokens=5000),
    "a prompt beyond the context": text(prompt="word " * 3000),
    "a prompt that just does not fit": text(prompt=[5] * (CONTEXT_TOKENS - 8), max_tokens=9),
    "a least length above the limit": chat(min_tokens=30),
    "an unknown model": chat(model="zz"),
    "no messages": chat(messages=[]),
    "an empty stop string": chat(stop=""),
    "a bias of no token": chat(logit_bias={"x": 1}),
    "a bias outside of the vocabulary": chat(logit_bias={"99999": 1}),
    "a token outside of the vocabulary": text(prompt=[999999]),
    "a negative token": text(prompt=[-1]),
    "an empty prompt": text(prompt=""),
    "no token ids": text(prompt=[[]]),
    "kinds of prompts mixed": text(prompt=["a", [1]]),
    "a seed beyond 64 bits": chat(seed=2**70),
    "no JSON": (CHAT, b"{"),
    "no object": (CHAT, b"[]"),
    "no messages at all": (CHAT, b'{"model":"tiny"}'),
}


@pytest.mark.parametrize("case", ANSWERED)
def test_an_answer_is_vllm_s_own_whole_and_streamed(pair: Pair, case: str) -> None:
    path, body = ANSWERED[case]
    whole = pair.ours.ask(path, body)
    assert whole.status == 200
    assert whole == pair.theirs.ask(path, body)
    assert pair.ours.ask(path, body, stream=True) == whole
    assert pair.theirs.ask(path, body, stream=True) == whole


def test_the_answers_compared_hold_multi_byte_text(pair: Pair) -> None:
    """So that a character split over tokens would show."""
    path, body = ANSWERED["multi-byte output"]
    ((_, text, _, _),) = pair.ours.ask(path, body).choices
    assert not text.isascii()


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_has_vllm_s_own_status_whole_and_streamed(pair: Pair, case: str) -> None:
    path, body = REFUSED[case]
    whole = pair.ours.ask(path, body)
    assert whole.status >= 400
    assert whole == pair.theirs.ask(path, body)
    assert pair.ours.ask(path, body, stream=True) == whole
    assert pair.theirs.ask(path, body, stream=True) == whole


@pytest.mark.parametrize("field", [{"temperature": -1}, {"top_p": 2}, {"top_k": -5}, {"presence_penalty": 5}])
def test_what_the_engine_refuses_is_said_in_vllm_s_words(pair: Pair, field: dict[str, Any]) -> None:
    path, body = chat(**field)
    ours, theirs = (server.client.post(path, json=body).json()["error"] for server in (pair.ours, pair.theirs))
    assert (ours["message"], ours["param"]) == (theirs["message"], theirs["param"])
    assert next(iter(field)) in ours["message"]


def test_the_engine_s_numbers_agreed_with_the_reference(pair: Pair) -> None:
    assert pair.ours.metric("replica_verified") == 1


def test_a_client_that_leaves_frees_the_engine_and_its_cache(pair: Pair) -> None:
    path, body = chat(max_tokens=CONTEXT_TOKENS - 100, ignore_eos=True, stream=True)
    free_tokens = pair.ours.metric("replica_kv_free_tokens")
    with pair.ours.client.stream("POST", path, json=body) as stream:
        parts = stream.iter_text()
        for _ in range(20):
            next(parts)
        wait_for(lambda: pair.ours.metric("replica_running_requests") == 1)
    wait_for(lambda: pair.ours.metric("replica_running_requests") == 0)
    wait_for(lambda: pair.ours.metric("open_requests") == 0)
    # A step reports the cache as it was while it ran: the next request brings the news.
    pair.ours.ask(*text(max_tokens=1))
    wait_for(lambda: pair.ours.metric("replica_kv_free_tokens") >= free_tokens)


@pytest.mark.parametrize("case", forwarded.ANSWERED)
def test_what_vllm_s_application_answers_is_the_same_to_the_letter(pair: Pair, case: str) -> None:
    ours, theirs = (server.ask_exactly(forwarded.ANSWERED[case]) for server in (pair.ours, pair.theirs))
    assert ours.status == 200, ours.said
    assert ours == theirs


@pytest.mark.parametrize("case", forwarded.REFUSED)
def test_what_vllm_s_application_refuses_is_refused_in_its_words(pair: Pair, case: str) -> None:
    ours, theirs = (server.ask_exactly(forwarded.REFUSED[case]) for server in (pair.ours, pair.theirs))
    assert ours.status >= 400
    assert ours == theirs


@pytest.mark.parametrize("case", forwarded.UNKNOWN_MODEL, ids=lambda case: case[0])
def test_an_unknown_model_is_not_found_by_either(pair: Pair, case: forwarded.Case) -> None:
    assert pair.ours.ask_exactly(case).status == pair.theirs.ask_exactly(case).status == 404


def test_tokens_of_forwarded_requests_are_counted(pair: Pair) -> None:
    path, body = forwarded.chat(logprobs=True, n=3, temperature=0.5, stream=False)
    before = [pair.ours.metric(name) for name in ("prompt_tokens_total", "output_tokens_total")]
    usage = pair.ours.client.post(path, json=body).json()["usage"]
    after = [pair.ours.metric(name) for name in ("prompt_tokens_total", "output_tokens_total")]
    assert [after[0] - before[0], after[1] - before[1]] == [usage["prompt_tokens"], usage["completion_tokens"]]
