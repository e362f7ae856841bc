"""What does a router tell Prometheus of scale decisions?

They are made once, in Serve's controller, and told by every router that reads them: over several routers take the
maximum, not the sum.
"""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge

from autoscaling import ENGINE_PREFIX, Entry


class ScalingMetrics:
    """Replicas wanted, and how often that number went up or down, since this router began to read."""

    def __init__(self, registry: CollectorRegistry) -> None:
        wanted = "Replicas that the scaler wants; only advice where the fleet says advise"
        self._wanted = Gauge("headrace_wanted_replicas", wanted, ["model"], registry=registry)
        decisions = "Decisions that changed the number of replicas wanted"
        self._decisions = Counter("headrace_scale_decisions", decisions, ["model", "direction"], registry=registry)
        self._last: dict[str, int] = {}

    def decided(self, entries: Iterable[Entry]) -> None:
        """Takes in what the journal tells, oldest first."""
        for entry in entries:
            model, wanted = entry["deployment"].removeprefix(ENGINE_PREFIX), entry["wanted"]
            before = self._last.get(model, entry["running"] + entry["starting"])
            if wanted != before:
                self._decisions.labels(model, "up" if wanted > before else "down").inc()
            self._wanted.labels(model).set(wanted)
            self._last[model] = wanted
