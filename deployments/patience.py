"""When has an answer taken too long?"""

import asyncio
from collections.abc import Sequence

from deployments.fleet import RouterSettings
from deployments.frames import Failure
from deployments.ticket import Ticket


class Patience:
    """Fails the tickets of one request when their answer is not complete in time, or nothing comes for too long.

    Only of a stream something comes before its end.
    """

    def __init__(self, tickets: Sequence[Ticket], settings: RouterSettings, *, stream: bool) -> None:
        self._tickets, self._settings, self._stream = tickets, settings, stream
        self._loop = asyncio.get_running_loop()
        self._began_s = self._loop.time()
        self._timer = self._look_at([])

    def close(self) -> None:
        """Waits no more."""
        self._timer.cancel()

    def _end_s(self) -> float:
        return self._began_s + self._settings.longest_stream_s

    def _look_at(self, due_s: list[float]) -> asyncio.TimerHandle:
        """The next look: when one is due, or when one that begins to speak after this might be."""
        if self._stream:
            limits = self._settings.limits
            due_s.append(self._loop.time() + min(limits.first_token_s, limits.between_tokens_s))
        return self._loop.call_at(min([self._end_s(), *due_s]), self._look)

    def _look(self) -> None:
        """Fails what is due, and looks again when the next may be."""
        now_s = self._loop.time()
        going = [ticket for ticket in self._tickets if ticket.open_choices > 0 and ticket.failure is None]
        if now_s >= self._end_s():
            longest = f"{self._settings.longest_stream_s:g} s after the request, the longest that this server takes."
            for ticket in self._tickets:
                _fail(ticket, f"The answer was not complete {longest}")
            return
        for ticket in going:
            if now_s >= self._due_s(ticket):
                _fail(ticket, self._silence(ticket))
        self._timer = self._look_at([self._due_s(ticket) for ticket in going if ticket.failure is None])

    def _due_s(self, ticket: Ticket) -> float:
        """When this one has said nothing for too long."""
        if not self._stream:
            return self._end_s()
        limits = self._settings.limits
        if ticket.heard_s is None:
            return self._began_s + limits.first_token_s
        return ticket.heard_s + limits.between_tokens_s

    def _silence(self, ticket: Ticket) -> str:
        limits = self._settings.limits
        if ticket.heard_s is None:
            return (
                f"No token came within {limits.first_token_s:g} s of the request, the longest that this server waits."
            )
        return f"No token came for {limits.between_tokens_s:g} s, the longest that this server waits."


def _fail(ticket: Ticket, message: str) -> None:
    ticket.fail(Failure(ticket.value.id, ticket.attempt, 504, message))
