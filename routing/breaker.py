"""Which replicas have failed so often that they should have a rest, and for how long?

A circuit breaker for each replica. A replica that rests gets no requests; then it gets one, on trial, and with that
answered all of them again. Rests that follow each other soon get longer, so that a replica that now fails and now
doesn't costs few requests and changes its state seldom, however the failures fall.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

REMEMBERED = 16
"""Answers of a replica that count, the latest."""
FAILURES = 5
"""So many failures among them, at least half of all, make a rest. A loss always does."""
FIRST_REST_S = 1.0
LONGEST_REST_S = 60.0
FORGET_S = 120.0
"""After so long in full service the next rest is a first one again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """What is remembered of one replica."""

    outcomes: tuple[bool, ...] = ()
    """Whether requests were answered, since the last rest."""
    rest_s: float = 0.0
    """How long the last rest was; 0: none that counts."""
    until_s: float | None = None
    """When the rest ends, or ended, and the trial begins; None: full service."""
    served_since_s: float = 0.0
    """When full service began again."""


def succeeded(health: Health, now_s: float) -> Health:
    """After an answered request. A rest is not cut short by what was sent before it."""
    if health.until_s is None:
        return replace(health, outcomes=(*health.outcomes, True)[-REMEMBERED:])
    return health if now_s < health.until_s else replace(health, outcomes=(), until_s=None, served_since_s=now_s)


def failed(health: Health, now_s: float) -> Health:
    """After a request that the replica failed, through no fault of the client's."""
    if health.until_s is not None:
        return health if now_s < health.until_s else lost(health, now_s)
    outcomes = (*health.outcomes, False)[-REMEMBERED:]
    failures = outcomes.count(False)
    if failures >= FAILURES and 2 * failures >= len(outcomes):
        return lost(health, now_s)
    return replace(health, outcomes=outcomes)


def lost(health: Health, now_s: float) -> Health:
    """After the replica itself was lost: a rest, twice as long as the last one unless that is forgotten."""
    if health.until_s is not None and now_s < health.until_s:
        return health
    forgotten = health.until_s is None and now_s - health.served_since_s >= FORGET_S
    rest_s = FIRST_REST_S if forgotten or not health.rest_s else min(2 * health.rest_s, LONGEST_REST_S)
    return Health(rest_s=rest_s, until_s=now_s + rest_s, served_since_s=health.served_since_s)


def rested(replicas: Mapping[str, Health], now_s: float) -> Mapping[str, int]:
    """How many requests at once those replicas may have that are not in full service: 0 in a rest, 1 on trial.

    Empty when none is in full service: bad answers are better than none.
    """
    if all(health.until_s is not None for health in replicas.values()):
        return {}
    return {name: int(now_s >= health.until_s) for name, health in replicas.items() if health.until_s is not None}
