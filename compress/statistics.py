"""Between which bounds does a figure lie? 95 % intervals over blocks of text, rounds and items of tasks.

Means and ratios are resampled (BCa bootstrap, Efron 1987, by scipy). Few values make a bootstrap too narrow by about
the step from Student's t to the normal distribution, so that its level is raised by that step (Hesterberg 2015,
arXiv 1411.5279, "expanded percentile interval"). Below five values even that covers less than it says: a resample
never leaves the range of what was seen. A single value is its own bounds: nothing is known of its spread.
"""

import math
import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from compress.report import Interval

LEVEL = 0.95
RESAMPLES = 2_000

Floats = NDArray[np.float64]


def mean(values: ArrayLike, seed: int = 0) -> Interval:
    """Mean of independent values (n,). Raises ValueError where there is none, or one that is not finite."""
    return _bootstrap([_finite(values)], lambda drawn, axis: drawn.mean(axis=axis), seed)


def block_mean(values: ArrayLike, seed: int = 0) -> Interval:
    """Mean over tokens (blocks, tokens), resampled by block: the tokens of a block depend on each other."""
    return mean(_by_block(values), seed)


def perplexity(nats: ArrayLike, seed: int = 0) -> Interval:
    """exp of the mean negative log-likelihood of tokens (blocks, tokens), in nats; resampled by block."""
    return _exp(block_mean(nats, seed))


def perplexity_ratio(*, artefact: ArrayLike, parent: ArrayLike, seed: int = 0) -> Interval:
    """Perplexity of the artefact / of the parent, from the nats (blocks, tokens) of both on the same tokens."""
    ours, theirs = np.asarray(artefact, dtype=np.float64), np.asarray(parent, dtype=np.float64)
    _alike(ours, theirs)
    return _exp(block_mean(ours - theirs, seed))


def paired_ratio(*, artefact: ArrayLike, parent: ArrayLike, seed: int = 0) -> Interval:
    """Mean of the artefact / mean of the parent, values above 0 (rounds,), resampled by round: both or neither."""
    ours, theirs = _finite(artefact), _finite(parent)
    _alike(ours, theirs)
    if min(ours.min(), theirs.min()) <= 0:
        raise ValueError(f"values of a ratio must be above 0, got {min(ours.min(), theirs.min())}")
    return _bootstrap([ours, theirs], lambda a, b, axis: a.mean(axis=axis) / b.mean(axis=axis), seed)


def share(right: ArrayLike) -> Interval:
    """Share of items (n,) that are right, with Wilson's interval (Wilson 1927)."""
    answers = _answers(right)
    found = stats.binomtest(int(answers.sum()), len(answers)).proportion_ci(LEVEL, method="wilson")
    return Interval(value=float(answers.mean()), low=float(found.low), high=float(found.high))


def paired_difference(*, artefact: ArrayLike, parent: ArrayLike) -> Interval:
    """Share that the artefact answers rightly - share of the parent, on the same items (n,).

    Agresti and Min 2005 (Statistics in Medicine 24, p. 729): Wald's interval for matched shares after half an item
    is added to each of the four outcomes, so that it stays wide where no item flips.
    """
    ours, theirs = _answers(artefact), _answers(parent)
    _alike(ours, theirs)
    gained, lost = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    items, discordant = len(ours) + 2, gained + lost + 1
    centre = (gained - lost) / items
    reach = float(stats.norm.ppf((1 + LEVEL) / 2)) * math.sqrt(discordant - (gained - lost) ** 2 / items) / items
    value = (gained - lost) / len(ours)
    return Interval(value=value, low=max(-1.0, centre - reach), high=min(1.0, centre + reach))


def flips(*, artefact: ArrayLike, parent: ArrayLike) -> float:
    """Share of items (n,) that only one of the two answers rightly."""
    ours, theirs = _answers(artefact), _answers(parent)
    _alike(ours, theirs)
    return float((ours != theirs).mean())


def _bootstrap(samples: list[Floats], statistic: Callable[..., Floats], seed: int) -> Interval:
    value, count = float(statistic(*samples, axis=-1)), len(samples[0])
    if count == 1 or all((sample == sample[0]).all() for sample in samples):
        return Interval(value=value, low=value, high=value)
    for method in ("BCa", "percentile"):
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            # BCa is undefined where all resamples agree: it says so in a warning, and in bounds that are no numbers.
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            found = stats.bootstrap(
                samples,
                statistic,
                n_resamples=RESAMPLES,
                confidence_level=_level(count),
                method=method,
                paired=len(samples) > 1,
                rng=np.random.default_rng(seed),
            ).confidence_interval
        if math.isfinite(found.low) and math.isfinite(found.high):
            return Interval(value=value, low=float(found.low), high=float(found.high))
    raise ValueError(f"no interval can be found for {samples}")


def _level(count: int) -> float:
    """The level at which a percentile interval of `count` values reaches as far as Student's t does at 95 %."""
    reach = math.sqrt(count / (count - 1)) * stats.t.ppf((1 + LEVEL) / 2, count - 1)
    return float(1 - 2 * stats.norm.sf(reach))


def _exp(interval: Interval) -> Interval:
    return Interval(value=math.exp(interval.value), low=math.exp(interval.low), high=math.exp(interval.high))


def _by_block(values: ArrayLike) -> Floats:
    blocks = np.asarray(values, dtype=np.float64)
    if blocks.ndim != 2 or not blocks.size:
        raise ValueError(f"values must be (blocks, tokens), got an array of shape {blocks.shape}")
    return blocks.mean(axis=1)


def _finite(values: ArrayLike) -> Floats:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or not found.size:
        raise ValueError(f"values must be one row with at least one, got an array of shape {found.shape}")
    if not np.isfinite(found).all():
        raise ValueError(f"values must be finite, got {found[~np.isfinite(found)][0]}")
    return found


def _answers(right: ArrayLike) -> NDArray[np.bool_]:
    found = np.asarray(right)
    if found.ndim != 1 or not found.size or found.dtype != np.bool_:
        raise ValueError(f"answers must be a row of booleans, got {found.dtype} of shape {found.shape}")
    return found


def _alike(ours: NDArray, theirs: NDArray) -> None:
    if ours.shape != theirs.shape:
        raise ValueError(
            f"artefact and parent must be measured on the same, got {ours.shape} and {theirs.shape} values"
        )
