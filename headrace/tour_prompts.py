"""How fast does a fleet answer many prompts at the same time, and which variant answers which?"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from statistics import median
from time import monotonic

import httpx

from headrace import ask

COST = {b"x-headrace-prefer": b"cost"}
"""Headers of a request that would rather be cheap."""
QUESTIONS = (
    "What is the capital of Italy?",
    "Name three colours of the rainbow.",
    "Why is the sky blue?",
    "What does a baker do?",
    "Write one sentence about the sea.",
    "What is water made of?",
    "How many days does a week have?",
    "What do bees make?",
    "Say something kind to a friend.",
    "What is a mountain?",
    "Which animal says meow?",
    "What is a river?",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """One request of a batch, and what came of it."""

    question: str
    headers: Mapping[bytes, bytes]
    sent_s: float
    """Since the batch began."""
    answer: ask.Answer


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """Of some requests of a batch."""

    requests: int
    tokens: int
    tokens_per_s: float
    """Over the whole batch's time."""
    ttft_p50_s: float
    ttft_most_s: float
    token_p50_s: float | None
    """From one token of an answer to the next; None where all had one token alone."""


def batch(
    url: str, model: str, *, at_once: int, max_tokens: int, tell: Callable[[int], None]
) -> tuple[list[Prompt], float]:
    """Each of QUESTIONS twice, plainly and at least cost, and how many seconds all took. Raises AnswerFailed."""
    begun_s = monotonic()
    pool = ThreadPoolExecutor(at_once)
    try:
        asked = [
            pool.submit(one, url, model, question, headers, max_tokens, begun_s)
            for question in QUESTIONS
            for headers in ({}, COST)
        ]
        prompts = []
        for done in as_completed(asked):
            prompts.append(done.result())
            tell(len(prompts))
    finally:
        # Not waited for: what is still asked breaks off when the fleet ends.
        pool.shutdown(wait=False, cancel_futures=True)
    return prompts, monotonic() - begun_s


def one(url: str, model: str, question: str, headers: Mapping[bytes, bytes], max_tokens: int, begun_s: float) -> Prompt:
    """Asks one question. Raises AnswerFailed."""
    body = ask.one_question(model, question) | {"max_tokens": max_tokens}
    answer, sent_s = ask.Answer(), monotonic() - begun_s
    for _ in ask.stream(url, body, answer, headers=headers):
        pass
    return Prompt(question=question, headers=headers, sent_s=sent_s, answer=answer)


def by_variant(prompts: Sequence[Prompt], seconds: float) -> dict[str, Figures]:
    """Figures of each variant that answered, by name."""
    names = sorted({str(prompt.answer.variant) for prompt in prompts})
    return {name: figures([one for one in prompts if one.answer.variant == name], seconds) for name in names}


def figures(prompts: Sequence[Prompt], seconds: float) -> Figures:
    """Of these prompts, in a batch that took so long."""
    answers = [prompt.answer for prompt in prompts]
    firsts = [answer.first_s for answer in answers if answer.first_s is not None]
    paces = [
        (answer.last_s - answer.first_s) / (answer.tokens - 1)
        for answer in answers
        if answer.first_s is not None and answer.tokens > 1
    ]
    tokens = sum(answer.tokens for answer in answers)
    return Figures(
        requests=len(prompts),
        tokens=tokens,
        tokens_per_s=tokens / seconds,
        ttft_p50_s=median(firsts),
        ttft_most_s=max(firsts),
        token_p50_s=median(paces) if paces else None,
    )


def all_serve(url: str, model: str) -> bool:
    """Whether each variant takes requests now: a model is ready as soon as one does. Raises AnswerFailed."""
    try:
        card = httpx.get(f"{url}/v1/models/{model}", timeout=5.0, trust_env=False).raise_for_status().json()
    except httpx.HTTPError as error:
        raise ask.AnswerFailed(f"{url}/v1/models/{model}: {error or type(error).__name__}") from None
    return all(variant["ready"] for variant in card["variants"])


def reasons(url: str) -> Counter[tuple[str, str]]:
    """Requests by variant and by why they went there, as the router counts them. Raises AnswerFailed."""
    from headrace.observe import samples

    try:
        text = httpx.get(f"{url}/metrics", timeout=5.0, trust_env=False).raise_for_status().text
    except httpx.HTTPError as error:
        raise ask.AnswerFailed(f"{url}/metrics: {error or type(error).__name__}") from None
    found: Counter[tuple[str, str]] = Counter()
    for sample in samples(text):
        if sample.name == "headrace_variant_requests_total":
            found[sample.labels["variant"], sample.labels["why"]] += int(sample.value)
    return found
