"""Do intervals hold the truth in at least 90 of 100 experiments (95 are promised), at no needless width?"""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from compress.report import Interval
from compress.statistics import (
    block_mean,
    flips,
    mean,
    paired_difference,
    paired_ratio,
    perplexity,
    perplexity_ratio,
    share,
)

EXPERIMENTS = 200
SPEEDS = arrays(np.float64, st.integers(1, 12), elements=st.floats(0.1, 1e4))
ANSWERS = st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=80)


def covers(interval: Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def width(interval: Interval) -> float:
    return interval.high - interval.low


def dependent_nats(random: np.random.Generator, blocks: int, tokens: int) -> np.ndarray:
    """Tokens (blocks, tokens) with mean 2.5, whose block makes them all easier or harder."""
    return random.normal(2.5, 0.3, (blocks, 1)) + random.normal(0, 1, (blocks, tokens))


@pytest.mark.parametrize("count", [5, 8, 40])
def test_the_mean_of_few_values_lies_within_its_interval(count: int):
    random = np.random.default_rng(3)
    held = [covers(mean(random.normal(10, 2, count), seed), 10) for seed in range(EXPERIMENTS)]
    assert sum(held) >= 0.9 * EXPERIMENTS


def test_the_mean_of_skewed_values_lies_within_its_interval():
    random = np.random.default_rng(4)
    held = [covers(mean(random.exponential(2, 30), seed), 2) for seed in range(EXPERIMENTS)]
    assert sum(held) >= 0.9 * EXPERIMENTS


def test_perplexity_lies_within_its_interval_although_the_tokens_of_a_block_depend_on_each_other():
    random = np.random.default_rng(5)
    texts = [dependent_nats(random, 8, 64) for _ in range(EXPERIMENTS)]
    held = [covers(perplexity(nats, seed), math.exp(2.5)) for seed, nats in enumerate(texts)]
    as_if_independent = [covers(mean(nats.ravel(), seed), 2.5) for seed, nats in enumerate(texts)]
    assert sum(held) >= 0.9 * EXPERIMENTS
    assert sum(as_if_independent) < 0.75 * EXPERIMENTS


def test_a_ratio_of_speeds_lies_within_its_interval_when_the_machine_slows_down():
    random = np.random.default_rng(6)

    def interval(seed: int) -> Interval:
        busy = random.uniform(0.5, 1.0, 10)
        parent, artefact = (mean_speed * busy * random.normal(1, 0.02, 10) for mean_speed in (100, 130))
        return paired_ratio(artefact=artefact, parent=parent, seed=seed)

    assert sum(covers(interval(seed), 1.3) for seed in range(EXPERIMENTS)) >= 0.9 * EXPERIMENTS


@pytest.mark.parametrize("truth", [0.25, 0.5, 0.97])
def test_a_share_lies_within_its_interval(truth: float):
    random = np.random.default_rng(7)
    assert sum(covers(share(random.random(200) < truth), truth) for _ in range(EXPERIMENTS)) >= 0.9 * EXPERIMENTS


@pytest.mark.parametrize(("lost", "gained"), [(0.10, 0.04), (0.01, 0.0)])
def test_a_difference_of_shares_lies_within_its_interval(lost: float, gained: float):
    random = np.random.default_rng(8)

    def interval() -> Interval:
        fate, parent = random.random(300), random.random(300) < 0.5
        artefact = np.where(parent, fate > 2 * lost, fate < 2 * gained)
        return paired_difference(artefact=artefact, parent=parent)

    assert sum(covers(interval(), gained - lost) for _ in range(EXPERIMENTS)) >= 0.9 * EXPERIMENTS


def test_perplexity_is_exp_of_the_mean_over_all_tokens():
    assert perplexity([[1.0, 3.0], [2.0, 6.0]]).value == pytest.approx(math.exp(3.0))


def test_a_ratio_of_perplexities_is_one_of_the_perplexities():
    random = np.random.default_rng(0)
    parent = dependent_nats(random, 8, 64)
    artefact = parent + random.exponential(0.2, parent.shape)
    ratio = perplexity_ratio(artefact=artefact, parent=parent)
    assert ratio.value == pytest.approx(perplexity(artefact).value / perplexity(parent).value)
    assert ratio.excludes(1.0)


def test_pairing_makes_intervals_narrower():
    random = np.random.default_rng(1)
    parent = dependent_nats(random, 8, 64)
    artefact = parent + random.exponential(0.05, parent.shape)
    paired, alone = perplexity_ratio(artefact=artefact, parent=parent), perplexity(artefact)
    assert width(paired) / paired.value < width(alone) / alone.value / 5
    busy = random.uniform(0.5, 1.0, 10)
    speeds = paired_ratio(artefact=120 * busy, parent=100 * busy + random.normal(0, 1, 10))
    assert width(speeds) < width(mean(120 * busy)) / 100 / 5


def test_pairing_makes_the_difference_of_shares_narrower():
    random = np.random.default_rng(2)
    parent = random.random(300) < 0.6
    same_items = parent ^ (random.random(300) < 0.03)
    assert width(paired_difference(artefact=same_items, parent=parent)) < width(share(parent)) / 2


@given(SPEEDS, st.integers(0, 3))
def test_the_ratio_of_a_thing_to_itself_is_exactly_one(speeds: np.ndarray, seed: int):
    assert paired_ratio(artefact=speeds, parent=speeds, seed=seed) == Interval(value=1, low=1, high=1)
    blocks = np.stack([speeds, speeds[::-1]])
    assert perplexity_ratio(artefact=blocks, parent=blocks, seed=seed) == Interval(value=1, low=1, high=1)


@given(SPEEDS, st.sampled_from([0.125, 4.0, 1024.0]), st.randoms(use_true_random=False))
def test_a_unit_changes_no_ratio_and_scales_a_mean(speeds: np.ndarray, unit: float, shuffle):
    other = np.array(shuffle.sample(list(speeds), len(speeds)))
    assert paired_ratio(artefact=other * unit, parent=speeds * unit) == paired_ratio(artefact=other, parent=speeds)
    plain, scaled = mean(speeds), mean(speeds * unit)
    assert (scaled.value, scaled.low, scaled.high) == pytest.approx(
        (plain.value * unit, plain.low * unit, plain.high * unit)
    )


@given(SPEEDS, st.integers(0, 5))
def test_the_same_seed_gives_the_same_interval_within_what_was_seen(values: np.ndarray, seed: int):
    found = mean(values, seed)
    assert found == mean(values, seed)
    edge = 1e-9 * values.max()
    assert values.min() - edge <= found.low <= found.high <= values.max() + edge


@given(st.floats(-1e6, 1e6), st.integers(1, 20))
def test_values_that_are_all_equal_have_no_width(value: float, count: int):
    found = mean([value] * count)
    assert found.low == found.value == found.high == pytest.approx(value)
    assert block_mean([[value] * 3] * count).low == pytest.approx(value)


@given(ANSWERS)
def test_shares_and_differences_stay_possible_and_agree(pairs: list[tuple[bool, bool]]):
    artefact, parent = np.array([pair[0] for pair in pairs]), np.array([pair[1] for pair in pairs])
    ours, theirs = share(artefact), share(parent)
    assert 0 <= ours.low <= ours.value <= ours.high <= 1
    difference = paired_difference(artefact=artefact, parent=parent)
    assert difference.value == pytest.approx(ours.value - theirs.value)
    assert -1 <= difference.low <= difference.value <= difference.high <= 1
    back = paired_difference(artefact=parent, parent=artefact)
    assert (back.low, back.high) == pytest.approx((-difference.high, -difference.low))
    assert abs(difference.value) <= flips(artefact=artefact, parent=parent) <= 1


def test_few_items_without_a_flip_prove_no_equality():
    right = np.ones(10, dtype=bool)
    few, many = (paired_difference(artefact=np.tile(right, n), parent=np.tile(right, n)) for n in (1, 50))
    assert few.value == many.value == 0
    assert few.low < -0.1
    assert width(many) < 0.01 < width(few)


def test_flips_count_both_ways_although_the_shares_are_the_same():
    assert flips(artefact=np.array([True, False, True, True]), parent=np.array([False, True, True, True])) == 0.5


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: mean([]), "at least one"),
        (lambda: mean([1.0, float("nan")]), "must be finite, got nan"),
        (lambda: perplexity([1.0, 2.0]), r"must be \(blocks, tokens\), got an array of shape \(2,\)"),
        (lambda: paired_ratio(artefact=[1.0, 2.0], parent=[1.0]), "measured on the same"),
        (lambda: paired_ratio(artefact=[1.0, 2.0], parent=[1.0, 0.0]), "above 0, got 0.0"),
        (lambda: perplexity_ratio(artefact=[[1.0, 2.0]], parent=[[1.0]]), "measured on the same"),
        (lambda: share([0.5, 1.0]), "a row of booleans, got float64"),
        (lambda: flips(artefact=[True], parent=[True, False]), "measured on the same"),
    ],
    ids=["empty", "nan", "tokens alone", "rounds", "zero", "blocks", "shares", "items"],
)
def test_values_that_mean_nothing_are_refused_in_one_line(call, line: str):
    with pytest.raises(ValueError, match=line) as refused:
        call()
    assert "\n" not in str(refused.value)
