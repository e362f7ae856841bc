"""What has one HTTP request used so far, and what of that is not in the journal yet?"""

from collections.abc import Sequence
from dataclasses import dataclass
from time import time
from typing import TYPE_CHECKING, Protocol

from deployments.sender import Sender
from deployments.usage_line import Line

if TYPE_CHECKING:
    from deployments.ticket import Ticket


@dataclass(slots=True)
class Used:
    """By one request, as engines told."""

    prompt_tokens: int = 0
    """Once an engine has begun to answer."""
    cached_tokens: int = 0
    """Of these, from an engine's cache."""
    output_tokens: int = 0
    gpu_s: float = 0.0


class Journal(Protocol):
    def add(self, line: Line) -> None: ...


class Toll(Protocol):
    def pay(self, line: Line) -> None: ...


class Bill:
    """Of the tickets of one HTTP request. `journal`: None where usage is not kept; `toll`: where nothing is limited."""

    def __init__(
        self,
        journal: Journal | None,
        toll: Toll | None,
        by: Sender,
        model: str,
        variant: str,
        tickets: Sequence["Ticket"],
    ) -> None:
        self._journal, self._toll, self._by, self._model, self._variant = journal, toll, by, model, variant
        self._tickets = tickets
        self._told: Used | None = None
        for ticket in tickets:
            ticket.bill = self

    def settle(self) -> None:
        """Charges what was used since the last time. Called before the last of an answer leaves, and when more is told
        of a request whose client has left.
        """
        if self._journal is None and self._toll is None:
            return
        used, told = _sum(self._tickets), self._told or Used()
        if self._told is not None and used == told:
            return
        line = Line(
            time(),
            self._by.tenant,
            self._by.key,
            self._model,
            self._variant,
            int(self._told is None),
            used.prompt_tokens - told.prompt_tokens,
            used.cached_tokens - told.cached_tokens,
            used.output_tokens - told.output_tokens,
            used.gpu_s - told.gpu_s,
        )
        self._told = used
        # In this order: what is counted is never missing in a budget, wherever this process is killed.
        if self._toll is not None:
            self._toll.pay(line)
        if self._journal is not None:
            self._journal.add(line)


def _sum(tickets: Sequence["Ticket"]) -> Used:
    total = Used()
    for ticket in tickets:
        used = ticket.used
        total.prompt_tokens += used.prompt_tokens
        total.cached_tokens += used.cached_tokens
        total.output_tokens += used.output_tokens
        total.gpu_s += used.gpu_s
    return total
