"""How long does a step take? A roofline whose few coefficients a data sheet suggests and a measured run corrects."""

from dataclasses import dataclass

from cluster.devices import Device
from cluster.step_work import Work


@dataclass(frozen=True, kw_only=True, slots=True)
class Coefficients:
    """What an engine makes of its device. All above 0."""

    compute: float
    """Share of the device's operations per second that its matrix products reach."""
    bandwidth: float
    """Share of its memory bandwidth that reading weights reaches."""
    kv_bandwidth: float
    """The same for the cache, which lies in blocks."""
    step_s: float
    """Of every step, whatever it does: scheduling, launches, sampling."""
    sequence_s: float
    """Of each sequence in a step: its bookkeeping, its place in the batch."""
    token_s: float
    """Of each new token in a step, beside its matrix products: norms, activations, its place in the cache."""
    attention: float = 1.0
    """Attention's operations per second, as a share of what matrix products reach: it grows with a prompt's square."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """How one replica lies on devices."""

    tensor: int = 1
    """Devices over which each layer is split."""
    pipeline: int = 1
    """Groups of layers, each on its own devices."""

    @property
    def devices(self) -> int:
        return self.tensor * self.pipeline

    def __str__(self) -> str:
        return f"TP {self.tensor}" + (f" x PP {self.pipeline}" if self.pipeline > 1 else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTime:
    """Seconds of one step, by what they are spent on."""

    linear_s: float
    """Matrix products, or reading their weights: whichever takes longer."""
    attention_s: float
    reduce_s: float
    """Exchange between the devices of a layer."""
    overhead_s: float
    limit: str
    """What the linear maps wait for: `compute` or `bandwidth`."""

    @property
    def seconds(self) -> float:
        return self.linear_s + self.attention_s + self.reduce_s + self.overhead_s


LINK_SHARE = 0.5
"""Of a link's rate that exchanges of a step's size reach: 35 of 64 GB/s between four RTX 5090 over PCIe 5 (NVIDIA/nccl
issue 1639), 11 of 25 GB/s for 1 MB over an NVLink bridge (NVIDIA/nccl-tests issue 44)."""
REDUCE_LATENCY_S = 10e-6
"""Of one all-reduce, however small: measured NCCL latencies inside a machine are 8 to 20 us."""


def step_time(
    work: Work, device: Device, coefficients: Coefficients, *, dtype: str, layers: int, layout: Layout
) -> StepTime:
    """Seconds of one step: for the linear maps max(operations / compute, weights / bandwidth), for attention likewise
    over the cache (Williams et al., Roofline, doi 10.1145/1498765.1498785), two all-reduces a layer under tensor
    parallelism (Shoeybi et al., Megatron-LM, arXiv 1909.08053), and overhead. A pipeline's stages follow each other:
    they shorten no step.
    """
    peak = device.flops[dtype] * coefficients.compute * layout.tensor
    bandwidth = device.bandwidth_bytes_per_s * layout.tensor
    compute_s = (work.linear_flops + work.head_flops) / peak
    reading_s = work.weight_bytes / (bandwidth * coefficients.bandwidth)
    attending_s = work.attention_flops / (peak * coefficients.attention)
    attention_s = max(attending_s, work.kv_bytes / (bandwidth * coefficients.kv_bandwidth))
    return StepTime(
        linear_s=max(compute_s, reading_s),
        attention_s=attention_s,
        reduce_s=_reduce_s(work, device, layers=layers, devices=layout.tensor),
        overhead_s=coefficients.step_s + coefficients.sequence_s * work.sequences + coefficients.token_s * work.tokens,
        limit="compute" if compute_s > reading_s else "bandwidth",
    )


def _reduce_s(work: Work, device: Device, *, layers: int, devices: int) -> float:
    """Of a ring: each device sends 2 (n - 1) / n of the tensor."""
    if devices == 1:
        return 0.0
    sent_bytes = 2 * (devices - 1) / devices * work.reduced_bytes
    return 2 * layers * (REDUCE_LATENCY_S + sent_bytes / (LINK_SHARE * device.link_bytes_per_s))
