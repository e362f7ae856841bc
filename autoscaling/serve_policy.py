"""How does Ray Serve ask, and how is it answered? The application-level policy of a Headrace application.

Serve's controller calls it about ten times a second, on its event loop, with a context for each deployment:
"router", "engine-<model>" for each model, and "engine-<model>-<variant>" for each of its variants.
An exception here would stall every application of the cluster.
What it decides is also logged to the journal, from which routers take it (deployments/decision_watch.py).
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Protocol

from autoscaling.decide import decide
from autoscaling.decision import Decision
from autoscaling.fleet import Fleet, ReplicaLoad
from autoscaling.journal import opened
from autoscaling.ladder import lacked_s, standing_in
from autoscaling.memory import Memory
from autoscaling.serve_law import by_serve
from autoscaling.step_costs import StepCosts
from autoscaling.targets import Targets
from autoscaling.traffic import Traffic

LOGGER = logging.getLogger("ray.serve")
PERIOD_S = 1.0
"""Time between two decisions; in between, the last one is repeated."""
STALE_S = 5.0
"""A replica whose newest number is older is silent. Numbers come every second."""
ROUTER = "router"
ENGINE_PREFIX = "engine-"
STATE = "headrace"
"""Where our memory lies in Serve's policy_state, beside Serve's own keys."""


class Sample(Protocol):
    """Of ray.serve's TimeStampedValue: what is read here."""

    timestamp: float
    value: float


class Context(Protocol):
    """Of ray.serve.config.AutoscalingContext: what is read here."""

    deployment_name: str
    current_time: float
    target_num_replicas: int
    running_replicas: list[Any]
    raw_metrics: dict[str, dict[Any, list[Sample]]] | None
    aggregated_metrics: dict[str, dict[Any, float | None]] | None
    capacity_adjusted_min_replicas: int
    capacity_adjusted_max_replicas: int
    policy_state: dict[str, Any]
    config: Any


class ServePolicy:
    """One call answers for every deployment: Serve's target for each, and what to remember of each.

    Memory lives in Serve's policy_state, never here: Serve drops it at each deployment and when its
    controller restarts, and `decide` then starts from the replicas present.
    """

    def __init__(self, *, advise: bool = False, variants: Sequence[Sequence[str]] = (), **targets: float) -> None:
        """By the names of `Targets`; defaults are there. Raises ValueError or TypeError for what is none.

        `advise`: Serve's own law acts, and what would have been decided is only told. `variants`: of each model that
        has any, what its engine deployments serve, the best one first.
        """
        self._targets = Targets(**targets)
        self._advise = advise
        self._better = {
            f"{ENGINE_PREFIX}{cheap}": f"{ENGINE_PREFIX}{best}" for one in variants for best, cheap in pairwise(one)
        }
        self._journal = opened()
        self._said: set[str] = set()

    def __call__(self, contexts: Mapping[Any, Context]) -> tuple[dict[Any, float], dict[Any, dict[str, Any]]]:
        """Targets and policy states, by the keys of `contexts`. Never raises, never blocks."""
        targets: dict[Any, float] = {}
        states: dict[Any, dict[str, Any]] = {}
        for key, context in contexts.items():
            targets[key], states[key] = self._answer(context, contexts)
        return targets, states

    def _answer(self, context: Context, contexts: Mapping[Any, Context]) -> tuple[float, dict[str, Any]]:
        try:
            if context.deployment_name.startswith(ENGINE_PREFIX):
                return self._scale(context, contexts)
        except Exception as error:
            self._say_once(f"{context.deployment_name} keeps its replicas: {type(error).__name__}: {error}")
        return context.target_num_replicas, {}

    def _scale(self, context: Context, contexts: Mapping[Any, Context]) -> tuple[float, dict[str, Any]]:
        state = context.policy_state.get(STATE)
        if state is None:
            memory = Memory()
        elif 0 <= context.current_time - state["decided_s"] < PERIOD_S:
            return state["replicas"], {STATE: state}
        else:
            memory = Memory.from_json(state["memory"])
        better_s = _lacked_s(contexts.values(), self._better.get(context.deployment_name))
        fleet = standing_in(read_fleet(context, contexts.values()), better_s, hold_s=self._targets.hold_s)
        decision, memory = decide(fleet, memory, self._targets)
        replicas: float = decision.replicas
        if self._advise:
            replicas = by_serve(context, _router(contexts.values()), _model(context))
        self._tell(context, decision)
        state = {
            "decided_s": context.current_time,
            "replicas": replicas,
            "memory": memory.to_json(),
            "lacked_s": lacked_s(decision, (state or {}).get("lacked_s")),
        }
        return replicas, {STATE: state}

    def _tell(self, context: Context, decision: Decision) -> None:
        """To Serve's log what changes, to the journal everything. A journal that fails changes no decision."""
        name, advice = context.deployment_name, self._advise
        if decision.replicas != context.target_num_replicas and not advice:
            LOGGER.info("%s: %s", name, decision.reason)
        try:
            self._journal.info("%s", name, extra={"deployment": name, "decision": decision, "advice": advice})
        except Exception as error:
            self._say_once(f"{name}'s decisions are not told: {type(error).__name__}: {error}")

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            LOGGER.exception(text)


def read_fleet(context: Context, contexts: Iterable[Context]) -> Fleet:
    """One engine deployment's context, with its traffic from the routers', as `decide` wants it."""
    reports = _newest(context)
    router = _router(contexts)
    routers = [] if router is None else _of_model(_newest(router).values(), _model(context))
    expected = 1 if router is None else max(router.target_num_replicas, len(router.running_replicas))
    return Fleet(
        now_s=context.current_time,
        replicas=tuple(_load(replica, reports.get(replica, {})) for replica in context.running_replicas),
        starting=max(0, context.target_num_replicas - len(context.running_replicas)),
        queued_requests=int(sum(report["queued_requests"] for report in routers)),
        queued_tokens=int(sum(report["queued_tokens"] for report in routers)),
        traffic=Traffic.together(routers),
        min_replicas=context.capacity_adjusted_min_replicas,
        max_replicas=context.capacity_adjusted_max_replicas,
        silent_routers=max(0, expected - len(routers)),
    )


def _lacked_s(contexts: Iterable[Context], deployment: str | None) -> float | None:
    """When a deployment last lacked replicas, as far as it is remembered."""
    states = (each.policy_state.get(STATE) for each in contexts if each.deployment_name == deployment)
    return next((state["lacked_s"] for state in states if state), None)


def _model(context: Context) -> str:
    return context.deployment_name.removeprefix(ENGINE_PREFIX)


def _router(contexts: Iterable[Context]) -> Context | None:
    return next((each for each in contexts if each.deployment_name == ROUTER), None)


def _load(replica: Any, report: Mapping[str, float]) -> ReplicaLoad | None:
    """What a replica reported; None where it is silent. What is unknown is not reported."""
    if "slots" not in report:
        return None
    costs = None
    if "step_s" in report:
        names = ("step_s", "sequence_s", "prompt_token_s")
        costs = StepCosts(**{name: report[name] for name in names})
    return ReplicaLoad(
        id=replica.unique_id,
        running_requests=int(report["running_requests"]),
        waiting_requests=int(report["waiting_requests"]),
        slots=int(report["slots"]),
        waiting_tokens=int(report["waiting_tokens"]),
        kv_tokens=int(report["kv_tokens"]),
        kv_used_tokens=int(report["kv_used_tokens"]),
        costs=costs,
        computed_share=report["computed_share"],
        busy_share=report["busy_share"],
        gpu_busy_share=report.get("gpu_busy_share"),
        gpu_memory_share=report.get("gpu_memory_share"),
    )


def _of_model(reports: Iterable[Mapping[str, float]], model: str) -> list[dict[str, float]]:
    """A router's numbers of one model, which end with its name; none of a router that doesn't tell them."""
    end = f".{model}"
    found = [
        {name.removesuffix(end): value for name, value in report.items() if name.endswith(end)} for report in reports
    ]
    return [report for report in found if "queued_requests" in report]


def _newest(context: Context) -> dict[Any, dict[str, float]]:
    """The newest numbers of each replica that reported lately."""
    found: dict[Any, dict[str, float]] = {}
    for name, series in (context.raw_metrics or {}).items():
        for replica, samples in series.items():
            if samples and context.current_time - samples[-1].timestamp <= STALE_S:
                found.setdefault(replica, {})[name] = samples[-1].value
    return found
