"""How fast is the engine, step by step? Rates, costs, cache hits, the last step's age, and how long one may take."""

from dataclasses import dataclass
from time import monotonic
from typing import Any

from autoscaling import StepCosts, StepFit
from deployments.frames import Load
from routing import Rate, room_tokens
from routing.rate import MEMORY_S

REFIT_STEPS = 32
"""Between two looks at what steps cost."""


class BusyShare:
    """Of the last MEMORY_S or so that was spent in steps."""

    def __init__(self, now_s: float) -> None:
        self._told_s = now_s
        self._busy_s = self._passed_s = 0.0

    def add(self, busy_s: float, now_s: float) -> None:
        """A step ended now that took so long."""
        passed_s = max(0.0, now_s - self._told_s)
        keep = max(0.0, 1.0 - passed_s / MEMORY_S)
        self._busy_s = self._busy_s * keep + min(busy_s, passed_s)
        self._passed_s = self._passed_s * keep + passed_s
        self._told_s = max(now_s, self._told_s)

    def at(self, now_s: float) -> float:
        """Since the last step nothing was done."""
        self.add(0.0, now_s)
        return self._busy_s / self._passed_s if self._passed_s else 0.0


@dataclass(slots=True)
class _Core:
    """What one engine core said after its last step. Several where vLLM's data parallelism runs copies."""

    stepped_s: float
    running: int = 0
    waiting: int = 0
    kv_usage: float = 0.0


class StepMeter:
    """Hears of every engine step from vLLM's statistics.

    A step that made a first token counts to prefill, for the time since work arrived or the step before; every other
    step counts to decode.
    """

    def __init__(self) -> None:
        self._prefill, self._decode, self._ends = Rate(), Rate(), Rate()
        self._busy_since_s = self._stepped_s = monotonic()
        self._busy, self._fit = BusyShare(self._stepped_s), StepFit()
        self._cores = {0: _Core(self._stepped_s)}
        self._queried = self._hits = 0
        self._fitted: StepCosts | None = None
        """Looked at each REFIT_STEPS."""
        self.steps = 0

    def as_stat_logger(self, _config: Any, _index: int) -> "StepMeter":
        """vLLM's factory signature: there is one engine, hence one meter, whichever of its cores is meant."""
        return self

    def work_arrived(self) -> None:
        """A request was handed over: an idle engine's clock starts now."""
        if not any(core.running or core.waiting for core in self._cores.values()):
            self._busy_since_s = monotonic()

    def record(
        self, scheduler_stats: Any, iteration_stats: Any, mm_cache_stats: Any = None, engine_idx: int = 0
    ) -> None:
        """vLLM calls this after each step."""
        now_s = monotonic()
        core = self._core(engine_idx)
        took_s = now_s - max(core.stepped_s, self._busy_since_s)
        self._stepped_s = core.stepped_s = now_s
        self.steps += 1
        if scheduler_stats is not None:
            core.running = scheduler_stats.num_running_reqs
            core.waiting = scheduler_stats.num_waiting_reqs + scheduler_stats.num_skipped_waiting_reqs
            core.kv_usage = scheduler_stats.kv_cache_usage
            self._queried += scheduler_stats.prefix_cache_stats.queries
            self._hits += scheduler_stats.prefix_cache_stats.hits
        self._busy.add(took_s, now_s)
        if iteration_stats is not None and took_s > 0:
            self._ends.add(len(iteration_stats.finished_requests), took_s)
            prefilled, generated = iteration_stats.prompt_token_stats.computed, iteration_stats.num_generation_tokens
            if prefilled or generated:
                self._fit.add(took_s, sequences=generated, prompt_tokens=prefilled)
                self._refit()
            if prefilled:
                self._prefill.add(prefilled, took_s)
            elif generated:
                self._decode.add(generated, took_s)

    def since_step_s(self, core: int) -> float:
        """Seconds since a core's last step, or since work arrived if that is later: what the next one has taken."""
        return max(0.0, monotonic() - max(self._core(core).stepped_s, self._busy_since_s))

    def _core(self, number: int) -> _Core:
        if (core := self._cores.get(number)) is None:
            core = self._cores[number] = _Core(self._busy_since_s)
        return core

    def _refit(self) -> None:
        if not self.steps % REFIT_STEPS and (costs := self._fit.costs()) is not None:
            self._fitted = costs

    def log_engine_initialized(self) -> None:
        """vLLM calls this once; there is nothing to say."""

    def log(self) -> None:
        """vLLM calls this now and then; there is nothing to say."""

    def record_sleep_state(self, is_awake: int, level: int) -> None:
        """vLLM calls this when an engine sleeps; ours never do."""

    def busy_share(self) -> float:
        """Of the last seconds that was spent in steps."""
        return self._busy.at(monotonic())

    def ends_per_s(self) -> float:
        """Requests that end in a busy second."""
        return self._ends.per_s()

    def costs(self) -> StepCosts | None:
        """Of this engine's steps; None before the first."""
        return self._fit.costs()

    def room_tokens(self, step_tokens: int) -> int:
        """Prompt tokens that the engine takes in advance; `step_tokens`: the most that a step reads."""
        if (costs := self._fitted) is None:
            return room_tokens(step_tokens, prompt_token_s=0.0, own_s=0.0)
        running = sum(core.running for core in self._cores.values()) / len(self._cores)
        own_s = costs.step_s + costs.sequence_s * running
        return room_tokens(step_tokens, prompt_token_s=costs.prompt_token_s, own_s=own_s)

    def computed_share(self) -> float:
        """Of prompts' tokens since the start: the rest was found in the cache."""
        return 1.0 - self._hits / self._queried if self._queried else 1.0

    def step_age_s(self, now_s: float) -> float:
        """Seconds since the last step, or since work arrived at an idle engine."""
        return now_s - max(self._stepped_s, self._busy_since_s)

    def step_s(self, *, requests: int, prefilling_tokens: int) -> float:
        """Seconds that a step takes at most which makes a token for each request and reads so many prompt tokens.

        By this engine's own steps: they know its device, its model and what else runs on the machine, which a
        calculation from data sheets does not.
        """
        if not prefilling_tokens:
            return self._decode.step_s(requests)
        decode_s = self._decode.step_s(requests) if self._decode.measured else 0.0
        return self._prefill.step_s(prefilling_tokens) + decode_s

    def load(self, *, unfinished: int, prefilling_tokens: int, slots: int, kv_tokens: int) -> Load:
        """The header of a frame that leaves now. `slots` and `kv_tokens`: of all cores together, which are alike."""
        running = sum(core.running for core in self._cores.values())
        kv_usage = sum(core.kv_usage for core in self._cores.values()) / len(self._cores)
        return Load(
            running_requests=min(running, unfinished),
            waiting_requests=max(0, unfinished - running),
            prefilling_tokens=prefilling_tokens,
            slots=slots,
            kv_tokens=kv_tokens,
            kv_free_tokens=int(kv_tokens * (1.0 - kv_usage)),
            prefill_tokens_per_s=self._prefill.per_s(),
            prefill_step_tokens=self._prefill.step_tokens(),
            decode_tokens_per_s=self._decode.per_s(),
            prefix_queried_tokens=self._queried,
            prefix_hit_tokens=self._hits,
            step_age_s=self.step_age_s(monotonic()) if unfinished else 0.0,
        )
