"""What did each request have of the engine's time? Its tokens' share of each step that it was in.

The shares of a step are as long as the step, so that all requests together are charged for what the engine was busy.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class _Cost:
    """Of one owner, whose requests in the engine are several if it wants several choices."""

    seconds: float = 0.0
    requests: list[str] = field(default_factory=list)


class StepShares:
    """Hears of each step before its answers are made.

    `owner_of` says on whose behalf the engine runs a request, by its names; None: on nobody's any more.
    """

    def __init__(self, owner_of: Callable[[str], str | None]) -> None:
        self._owner_of = owner_of
        self._by_request: dict[str, _Cost] = {}
        self._by_owner: dict[str, _Cost] = {}
        self._read_s, self._read_tokens = 0.0, 0
        """Of prompts that are not wholly read: the engine says how much it read, but not of which."""
        self._silent_s = 0.0

    def step(self, seconds: float, outputs: Iterable[Any], read_tokens: int | None) -> None:
        """A step took so long. `read_tokens`: what it read of prompts; None: the engine doesn't say, and what was read
        for requests without a token yet counts in the step that makes their first.
        """
        seconds, self._silent_s = seconds + self._silent_s, 0.0
        made, begun = [], []
        for output in outputs:
            if (stats := output.prefill_stats) is not None:
                begun.append((output.request_id, stats.num_computed_tokens))
            else:
                made.append((output.request_id, len(output.new_token_ids)))
        read = sum(tokens for _, tokens in begun) if read_tokens is None else read_tokens
        if not (tokens := read + sum(count for _, count in made)):
            self._silent_s = seconds
            return
        each_s = seconds / tokens
        self._read_s += each_s * read
        self._read_tokens += read
        for request, count in made:
            self._give(request, each_s * count)
        for request, count in begun:
            self._give(request, self._take_read(count))

    def idle(self) -> None:
        """Nothing is left to be run: what passes is nobody's."""
        self._silent_s = 0.0

    def take(self, owner: str, unread_tokens: int = 0) -> float:
        """Seconds of a request that is over. `unread_tokens`: of its prompt, if it had no token yet."""
        cost = self._by_owner.pop(owner, None)
        for request in cost.requests if cost is not None else ():
            del self._by_request[request]
        return (cost.seconds if cost is not None else 0.0) + self._take_read(unread_tokens)

    @property
    def remembered(self) -> int:
        """Owners that nobody has asked about yet."""
        return len(self._by_owner)

    def forget(self, owners: set[str]) -> None:
        """Only these are still asked about."""
        for owner in self._by_owner.keys() - owners:
            self.take(owner)

    def _give(self, request: str, seconds: float) -> None:
        cost = self._by_request.get(request)
        if cost is None:
            if (owner := self._owner_of(request)) is None:
                return
            cost = self._by_request[request] = self._by_owner.setdefault(owner, _Cost())
            cost.requests.append(request)
        cost.seconds += seconds

    def _take_read(self, tokens: int) -> float:
        """The seconds in which so many prompt tokens were read, by the mean of those that nobody has taken."""
        if not tokens or not self._read_tokens:
            return 0.0
        share = min(1.0, tokens / self._read_tokens)
        seconds = self._read_s * share
        self._read_s -= seconds
        self._read_tokens = max(0, self._read_tokens - tokens)
        return seconds
