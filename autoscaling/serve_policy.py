"""How does Ray Serve ask, and how is it answered? The application-level policy of a Headrace application.

Serve's controller calls it about ten times a second, on its event loop, with a context for each deployment:
"router", and "engine-<model>" for each model. An exception here would stall every application of the cluster.
"""

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from autoscaling.decide import Targets, decide
from autoscaling.fleet import Fleet, ReplicaLoad
from autoscaling.memory import Memory

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
    capacity_adjusted_min_replicas: int
    capacity_adjusted_max_replicas: int
    policy_state: dict[str, Any]


class ServePolicy:
    """One call answers for every deployment: Serve's target for each, and what to remember of each.

    Memory lives in Serve's policy_state, never here: Serve drops it at each deployment and when its
    controller restarts, and `decide` then starts from the replicas present.
    """

    def __init__(self, target_utilization: float = 0.7, hold_s: float = 60.0) -> None:
        """Raises ValueError for a target that is out of range."""
        self._targets = Targets(utilization=target_utilization, hold_s=hold_s)
        self._said: set[str] = set()

    def __call__(self, contexts: Mapping[Any, Context]) -> tuple[dict[Any, int], dict[Any, dict[str, Any]]]:
        """Targets and policy states, by the keys of `contexts`. Never raises, never blocks."""
        targets: dict[Any, int] = {}
        states: dict[Any, dict[str, Any]] = {}
        for key, context in contexts.items():
            targets[key], states[key] = self._answer(context, contexts)
        return targets, states

    def _answer(self, context: Context, contexts: Mapping[Any, Context]) -> tuple[int, dict[str, Any]]:
        try:
            if context.deployment_name.startswith(ENGINE_PREFIX):
                return self._scale(context, contexts)
        except Exception as error:
            self._say_once(f"{context.deployment_name} keeps its replicas: {type(error).__name__}: {error}")
        return context.target_num_replicas, {}

    def _scale(self, context: Context, contexts: Mapping[Any, Context]) -> tuple[int, dict[str, Any]]:
        state = context.policy_state.get(STATE)
        if state is None:
            memory = Memory()
        elif 0 <= context.current_time - state["decided_s"] < PERIOD_S:
            return state["replicas"], {STATE: state}
        else:
            memory = Memory.from_json(state["memory"])
        decision, memory = decide(read_fleet(context, contexts.values()), memory, self._targets)
        if decision.replicas != context.target_num_replicas:
            LOGGER.info("%s: %s", context.deployment_name, decision.reason)
        state = {
            "decided_s": context.current_time,
            "replicas": decision.replicas,
            "memory": memory.to_json(),
        }
        return decision.replicas, {STATE: state}

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            LOGGER.exception(text)


def read_fleet(context: Context, contexts: Iterable[Context]) -> Fleet:
    """One engine deployment's context, with its queue from the router's, as `decide` wants it."""
    running, waiting, slots = (_newest(context, name) for name in ("running_requests", "waiting_requests", "slots"))
    heard = running.keys() & waiting.keys() & slots.keys()
    queued_requests, silent_routers = _read_queue(context, contexts)
    return Fleet(
        now_s=context.current_time,
        replicas=tuple(
            ReplicaLoad(
                id=replica.unique_id,
                running_requests=int(running[replica]),
                waiting_requests=int(waiting[replica]),
                slots=int(slots[replica]),
            )
            if replica in heard
            else None
            for replica in context.running_replicas
        ),
        starting=max(0, context.target_num_replicas - len(context.running_replicas)),
        queued_requests=queued_requests,
        min_replicas=context.capacity_adjusted_min_replicas,
        max_replicas=context.capacity_adjusted_max_replicas,
        silent_routers=silent_routers,
    )


def _read_queue(engine: Context, contexts: Iterable[Context]) -> tuple[int, int]:
    """Requests queued for an engine's model, and the number of routers that do not tell."""
    model = engine.deployment_name.removeprefix(ENGINE_PREFIX)
    router = next((context for context in contexts if context.deployment_name == ROUTER), None)
    if router is None:
        return 0, 1
    queued = _newest(router, f"queued_requests.{model}")
    routers = max(router.target_num_replicas, len(router.running_replicas))
    return int(sum(queued.values())), max(0, routers - len(queued))


def _newest(context: Context, name: str) -> dict[Any, float]:
    """The newest value of each replica that reported one lately."""
    series = (context.raw_metrics or {}).get(name, {})
    return {
        replica: samples[-1].value
        for replica, samples in series.items()
        if samples and context.current_time - samples[-1].timestamp <= STALE_S
    }
