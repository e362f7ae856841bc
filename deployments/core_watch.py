"""Is an engine core dead, or hung? Looked at twice a second, on the event loop of its replica."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

LOOK_S = 0.5
HUNG_S = 3.0
"""A core with work is given at least so long for a step."""
MARGIN = 4.0
"""A step may take so many times its prediction: attention to a long context, a busy machine."""
PROBE_S = 60.0
"""A core that was idle for so long is probed: it spins for a second after each step, so not oftener."""


class Core(Protocol):
    """What is asked of an engine to watch its core."""

    def dead(self) -> bool:
        """Whether the core is gone."""
        ...

    def on_death(self, tell: Callable[[], None]) -> None:
        """`tell()` is called when the core's death is known here, before anybody hears of it by an error."""
        ...

    def unfinished(self) -> int:
        """Requests taken and not ended."""
        ...

    def steps(self) -> int:
        """Steps made since the start."""
        ...

    def step_s(self) -> float:
        """Predicted seconds of the step under way."""
        ...

    def probe(self) -> Awaitable[object]:
        """Gives the core one token to make."""
        ...


@dataclass(slots=True)
class Quiet:
    """For how long a core has made no step."""

    steps: int = 0
    busy_s: float = 0.0
    """With work. Work that was cancelled meanwhile counts: clients that give up must not hide that the core hangs."""
    idle_s: float = 0.0

    def look(self, passed_s: float, *, steps: int, busy: bool) -> None:
        """Counts the seconds since the look before, two looks' worth at most.

        When this process itself stood still, the core's steps are still on their way here.
        """
        if steps != self.steps:
            self.steps, self.busy_s, self.idle_s = steps, 0.0, 0.0
        elif busy:
            self.busy_s += min(passed_s, 2 * LOOK_S)
        else:
            self.idle_s += min(passed_s, 2 * LOOK_S)


def patience_s(step_s: float) -> float:
    """Seconds without a step after which a core with work counts as hung; `step_s`: the step's predicted seconds."""
    return max(HUNG_S, MARGIN * step_s)


class CoreWatch:
    """Calls `on_gone(reason)` once, as soon as the core is dead, or hung; an idle one is probed."""

    def __init__(self, core: Core, on_gone: Callable[[str], None]) -> None:
        self._core, self._on_gone = core, on_gone
        self._quiet, self._looked_s = Quiet(), monotonic()
        self._probing: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(LOOK_S, self._look)
        core.on_death(self._died)

    def close(self) -> None:
        """Looks no more: what ends from now on was meant to."""
        self._on_gone = _nobody
        self._timer.cancel()
        if self._probing is not None:
            self._probing.cancel()

    def _look(self) -> None:
        now_s = monotonic()
        self._quiet.look(now_s - self._looked_s, steps=self._core.steps(), busy=self._core.unfinished() > 0)
        self._looked_s = now_s
        patient_s = patience_s(self._core.step_s())
        if self._core.dead():
            self._died()
        elif self._quiet.busy_s > patient_s:
            self._gone(f"engine core hung: no step for {self._quiet.busy_s:.1f} s")
        else:
            self._timer = self._loop.call_later(LOOK_S, self._look)
            # With work too: a request that vLLM lost makes no steps, and hangs nothing.
            if self._probing is None and (self._quiet.idle_s > PROBE_S or self._quiet.busy_s > patient_s / 2):
                self._probing = asyncio.ensure_future(self._probe())

    def _died(self) -> None:
        self._gone("engine core died")

    def _gone(self, reason: str) -> None:
        on_gone = self._on_gone
        self.close()
        on_gone(reason)

    async def _probe(self) -> None:
        # Whether it made the token is seen by its step; why it did not, by the looks that follow.
        with suppress(Exception):
            await self._core.probe()
        self._probing = None


def _nobody(_reason: str) -> None:
    """There is nobody to tell, or no more."""
