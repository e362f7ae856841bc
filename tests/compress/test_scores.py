"""How far two opinions of a text are apart, and that a gate sees it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from compress import gate, scores
from compress.scores import Scores
from tests.compress.tiny_models import llama, logits, some_text

SEEDS = st.integers(0, 2**32 - 1)


def distribution(seed: int, *, places: int = 5, tokens: int = 40) -> NDArray[np.float64]:
    drawn = np.random.default_rng(seed).normal(0, 2, (1, places, tokens))
    return drawn - np.log(np.exp(drawn).sum(axis=-1, keepdims=True))


def opinion(logprobs: NDArray[np.float64], *, kept: int) -> Scores:
    order = np.argsort(-logprobs, axis=-1)[..., :kept]
    return Scores(
        nats=-logprobs[..., 0].astype(np.float32),
        likeliest=order.astype(np.int32),
        logprobs=np.take_along_axis(logprobs, order, axis=-1).astype(np.float32),
    )


def exact_kl(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    return (np.exp(one) * (one - other)).sum(axis=-1)


@given(SEEDS, SEEDS, st.integers(1, 39))
def test_the_coarse_distance_never_says_more_than_the_exact_one(one: int, other: int, kept: int) -> None:
    ours, theirs = distribution(one), distribution(other)
    coarse = scores.coarse_kl(ours[..., :kept], theirs[..., :kept])
    assert (coarse <= exact_kl(ours, theirs) + 1e-4).all()
    assert (coarse >= -1e-4).all()


@given(SEEDS)
def test_with_every_token_kept_the_distance_is_exact(seed: int) -> None:
    ours, theirs = distribution(seed), distribution(seed + 1)
    found = scores.distance(opinion(ours, kept=40), opinion(theirs, kept=40))
    np.testing.assert_allclose(found, exact_kl(ours, theirs), rtol=1e-3, atol=1e-4)


@given(SEEDS, st.integers(1, 40))
def test_the_same_opinion_is_at_no_distance(seed: int, kept: int) -> None:
    ours = distribution(seed)
    assert np.abs(scores.distance(opinion(ours, kept=kept), opinion(ours, kept=40))).max() < 1e-4


def test_scores_of_a_model_are_its_own_forward_pass(tmp_path: Path) -> None:
    model, other, text = llama(), llama(seed=1), some_text()
    parent, _ = scores.score(other, text)
    found, kl = scores.score(model, text, parent)
    ours, theirs = (logits(each, text)[:, :-1].log_softmax(dim=-1).double().numpy() for each in (model, other))
    following = np.array(text.rows)[:, 1:, None]
    np.testing.assert_allclose(found.nats, -np.take_along_axis(ours, following, axis=-1)[..., 0], rtol=1e-4)
    assert kl is not None
    np.testing.assert_allclose(kl, exact_kl(theirs, ours), rtol=1e-3, atol=1e-4)
    found.save(tmp_path / "scores")
    assert (Scores.load(tmp_path / "scores").likeliest == found.likeliest).all()


def judged(engine: NDArray[np.float64], compressor: NDArray[np.float64], parent: NDArray[np.float64]) -> float:
    opinions = opinion(engine, kept=20), opinion(compressor, kept=40), opinion(parent, kept=40)
    return gate.judge(*opinions, dtype="bfloat16", rounded=False).kl


def test_an_engine_that_computes_the_same_passes_the_gate() -> None:
    assert judged(distribution(1) + 0.001, distribution(1), distribution(2)) < 0.01


def test_an_engine_that_serves_the_parent_is_named() -> None:
    with pytest.raises(gate.GateFailed, match=r"nearer to the parent.*without effect"):
        judged(distribution(2), distribution(1), distribution(2))


def test_a_wrong_kernel_is_refused_with_the_figure() -> None:
    with pytest.raises(gate.GateFailed, match=r"KL \d\.\d{4} nats per token.*a wrong kernel"):
        judged(distribution(3), distribution(1), distribution(2))


def test_an_engine_that_says_one_token_everywhere_has_lost_its_head() -> None:
    silent = np.full((1, 5, 40), np.log(1e-6))
    silent[..., 7] = np.log(1 - 39e-6)
    with pytest.raises(gate.GateFailed, match="the head was lost"):
        judged(silent, distribution(1), distribution(2))


def test_an_engine_without_numbers_is_refused() -> None:
    with pytest.raises(gate.GateFailed):
        judged(distribution(1) * np.nan, distribution(1), distribution(2))
