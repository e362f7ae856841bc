"""Which decisions were made lately, for whoever asks in the process that made them?

Serve's controller runs the policy and tells nobody what it returns beside the number: its memory is shown neither by
Serve's status nor by its REST. So decisions are logged to a logger with a name of its own, and its one handler keeps
the last of them. Loggers are what a process finds by name, also in code that was shipped by value; nothing here waits,
and what nobody reads is forgotten.
"""

import logging
from collections import deque
from typing import Any, TypedDict

from autoscaling.decision import Decision

NAME = "headrace.decisions"
ALIVE_S = 60.0
"""A decision that changes nothing is kept after so long: it tells that somebody still decides, and by which load."""
MOST = 1000
"""Entries that are kept for readers, of all deployments."""

Cursor = tuple[float, int]
"""How far a reader has come: when the journal began, and how many of its entries were read."""
START: Cursor = (0.0, 0)
State = tuple[int, int, int]
"""Replicas wanted, running, starting."""


class Entry(TypedDict):
    """What is kept of a decision: values that json can write."""

    deployment: str
    at_s: float
    """Seconds since the epoch, by the clock of Serve's controller."""
    wanted: int
    running: int
    """Replicas that ran when it was decided."""
    starting: int
    advice: bool
    """Serve's own law acts; this is what would have been done."""
    reason: str
    numbers: dict[str, Any]
    """What `Decision.to_json` tells beside the rest."""
    one_fewer: dict[str, Any] | None
    """What one replica fewer would have meant; None: unknown, or none would be left."""


class Journal(logging.Handler):
    """Keeps each change of replicas wanted, running or starting, and one decision a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._entries: deque[Entry] = deque(maxlen=MOST)
        self._count = 0
        self._began_s = 0.0
        self._newest: dict[str, tuple[State, float]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Of a record with a `decision`, its `deployment`, and whether it was only `advice`."""
        told = record.__dict__
        deployment, decision = told["deployment"], told["decision"]
        state, at_s = _state(decision), decision.fleet.now_s
        before, kept_s = self._newest.get(deployment, (None, 0.0))
        if state == before and 0 <= at_s - kept_s < ALIVE_S:
            return
        self._entries.append(entry(deployment, decision, advice=told["advice"]))
        self._newest[deployment] = state, at_s
        self._began_s = self._began_s or at_s
        self._count += 1

    def since(self, cursor: Cursor) -> tuple[Cursor, list[Entry]]:
        """What was kept after a reader's cursor, oldest first, and the next cursor."""
        began_s, read = cursor
        fresh = self._count - (read if began_s == self._began_s else 0)
        entries = list(self._entries)
        return (self._began_s, self._count), entries[max(0, len(entries) - fresh) :]


def opened() -> logging.Logger:
    """The logger of this process, with a new journal: the last policy that was made is the one that decides."""
    logger = logging.getLogger(NAME)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.handlers = [Journal()]
    return logger


def entry(deployment: str, decision: Decision, *, advice: bool) -> Entry:
    """What is kept of a decision."""
    numbers = decision.to_json()
    apart = ("at_s", "replicas", "present", "reason", "one_fewer")
    return Entry(
        deployment=deployment,
        at_s=numbers["at_s"],
        wanted=decision.replicas,
        running=len(decision.fleet.replicas),
        starting=decision.fleet.starting,
        advice=advice,
        reason=numbers["reason"],
        numbers={name: value for name, value in numbers.items() if name not in apart},
        one_fewer=numbers["one_fewer"],
    )


def _state(decision: Decision) -> State:
    return decision.replicas, len(decision.fleet.replicas), decision.fleet.starting
