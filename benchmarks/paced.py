"""How are real engines given a known speed, so that more of them can do more, on any machine?

    engine: {scheduler_cls: benchmarks.paced.PacedScheduler}

Everything else is vLLM's: scheduling, cache, processes.
"""

import time
from typing import Any

from vllm.v1.core.sched.scheduler import Scheduler

from benchmarks.pace import STEP_S


class PacedScheduler(Scheduler):
    """What a step has made is not given before STEP_S have passed since it began."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._began_s = 0.0

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        self._began_s = time.monotonic()
        return super().schedule(*args, **kwargs)

    def update_from_output(self, *args: Any, **kwargs: Any) -> Any:
        time.sleep(max(0.0, self._began_s + STEP_S - time.monotonic()))
        return super().update_from_output(*args, **kwargs)
