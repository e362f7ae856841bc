"""How does Serve's controller drive a policy? Contexts, metrics and the wrapper are Serve's own; its loop is played."""

from collections.abc import Sequence

from ray.serve._private.common import DeploymentID, ReplicaID, TimeStampedValue
from ray.serve.autoscaling_policy import _apply_app_level_autoscaling_config
from ray.serve.config import AutoscalingConfig, AutoscalingContext

from autoscaling import ServePolicy, Traffic

ROUTER = DeploymentID(name="router", app_name="headrace")
ENGINE = DeploymentID(name="engine-tiny", app_name="headrace")
OTHER = DeploymentID(name="engine-big.1", app_name="headrace")
VARIANT = DeploymentID(name="engine-tiny-w4", app_name="headrace")


class Application:
    """One router and engines, as Serve's controller would drive them: targets are met at once."""

    def __init__(
        self,
        *engines: DeploymentID,
        max_replicas: int = 8,
        advise: bool = False,
        variants: Sequence[Sequence[str]] = (),
        **serve: float,
    ) -> None:
        """`serve`: what Serve itself is told of engines, beside the bounds."""
        policy = ServePolicy(target_utilization=0.7, hold_s=60.0, advise=advise, variants=variants)
        self.policy = _apply_app_level_autoscaling_config(policy)
        self.serve = {"upscale_delay_s": 0, "downscale_delay_s": 0} | serve
        self.now_s = 1_000.0
        self.max_replicas = max_replicas
        self.targets = {ROUTER: 1, **dict.fromkeys(engines, 0)}
        self.states: dict[DeploymentID, dict] = {}
        self.reports: dict[ReplicaID, dict[str, float]] = {}
        self.report_age_s = 0.0

    def replicas(self, deployment: DeploymentID) -> list[ReplicaID]:
        return [ReplicaID(str(number), deployment) for number in range(self.targets[deployment])]

    def queue(self, requests: float, model: str = "tiny") -> None:
        traffic = Traffic(prompt_tokens=100.0, output_tokens=10.0).to_metrics()
        numbers = {"queued_requests": requests, "queued_tokens": 100 * requests} | traffic
        router = self.reports.setdefault(self.replicas(ROUTER)[0], {})
        router |= {f"{name}.{model}": value for name, value in numbers.items()}

    def run(self, deployment: DeploymentID, *, running: float, waiting: float = 0, slots: float = 10) -> None:
        """Every replica reports the same load."""
        for replica in self.replicas(deployment):
            self.reports[replica] = {
                "running_requests": running,
                "waiting_requests": waiting,
                "slots": slots,
                "waiting_tokens": 100 * waiting,
                "kv_tokens": 10_000.0,
                "kv_used_tokens": 10 * running,
                "busy_share": 0.5,
                "computed_share": 1.0,
            }

    def context(self, deployment: DeploymentID) -> AutoscalingContext:
        running = self.replicas(deployment)
        raw_metrics: dict[str, dict[ReplicaID, list[TimeStampedValue]]] = {}
        for replica in running:
            for name, value in self.reports.get(replica, {}).items():
                samples = [TimeStampedValue(self.now_s - 60, 999.0)]
                samples.append(TimeStampedValue(self.now_s - self.report_age_s, value))
                raw_metrics.setdefault(name, {})[replica] = samples
        bounds = (1, 1) if deployment == ROUTER else (0, self.max_replicas)
        return AutoscalingContext(
            deployment_id=deployment,
            deployment_name=deployment.name,
            app_name=deployment.app_name,
            current_num_replicas=len(running),
            target_num_replicas=self.targets[deployment],
            running_replicas=running,
            total_num_requests=0.0,
            total_queued_requests=0.0,
            aggregated_metrics={
                name: {replica: of[replica][-1].value for replica in of} for name, of in raw_metrics.items()
            },
            raw_metrics=raw_metrics,
            capacity_adjusted_min_replicas=bounds[0],
            capacity_adjusted_max_replicas=bounds[1],
            policy_state=self.states.get(deployment, {}),
            last_scale_up_time=None,
            last_scale_down_time=None,
            current_time=self.now_s,
            config=AutoscalingConfig.model_validate(
                {"min_replicas": bounds[0], "max_replicas": bounds[1], **self.serve}
            ),
        )

    def tick(self, after_s: float = 0.125) -> dict[str, int]:
        self.now_s += after_s
        targets, self.states = self.policy({key: self.context(key) for key in self.targets})
        self.targets |= targets
        return {key.name: target for key, target in self.targets.items()}
