"""What can a device do? Its memory, bandwidth and arithmetic, by its maker's data sheet."""

from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """One GPU, or a machine's CPU: what its maker says of it."""

    name: str
    """As typed: lower case, no spaces."""
    memory_bytes: int
    """Of the device, before anything is loaded."""
    bandwidth_bytes_per_s: float
    """Of that memory."""
    flops: dict[str, float]
    """Dense operations per second, by the dtype of the inputs: fp32, bf16, fp8, int8, fp4 where it has them."""
    link_bytes_per_s: float
    """To the other devices of its machine, one direction."""
    capability: str
    """CUDA's or ROCm's name for the architecture, or cpu."""
    source: str
    """Where these figures are published."""
