"""How does a test give real engines a known capacity, so that more of them can do more on any machine?"""

import time
from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler

STEP_S = 0.05
"""Long beside what a step of the tiny model costs: three engines then need a small part of two cores."""


class PacedScheduler(Scheduler):
    """Begins a step STEP_S after the one before, at the earliest. By vLLM's `scheduler_cls`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._next_s = 0.0

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        time.sleep(max(0.0, self._next_s - time.monotonic()))
        self._next_s = time.monotonic() + STEP_S
        return super().schedule(*args, **kwargs)
