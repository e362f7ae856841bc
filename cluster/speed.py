"""How fast is one replica: one request alone, and with every slot taken? What does it wait for?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cluster.calibration import ModelIdentity, identity, scaled
from cluster.devices import Device
from cluster.engine_memory import EngineSettings
from cluster.model import Model
from cluster.service import Requests, StepSeconds, mixed_step_s, prompt_chunks
from cluster.step_time import Coefficients, Layout, StepTime, step_time
from cluster.step_work import Chunk, work

DATA_SHEET = Coefficients(
    compute=0.727,
    bandwidth=0.795,
    kv_bandwidth=0.776,
    step_s=1.7e-3,
    sequence_s=2.2e-5,
    token_s=4.4e-6,
)
"""What an engine makes of a GPU that nobody has measured: docs/plan_accuracy.md says where from."""
DATA_SHEET_MODEL = ModelIdentity(
    architecture="LlamaForCausalLM",
    parameters=8_030_261_248,
    layers=32,
    hidden=4096,
    quantized=None,
    dtype="bf16",
)
"""Whose overheads these are (Llama 3.1 8B)."""
DATA_SHEET_ERROR = 0.26
"""Of nine in ten times per token of three runs on GPUs of which only the data sheet was used."""
ESTIMATE_ERROR = 1.0
"""Of a machine's CPU, whose very figures are estimates."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Speeds:
    """What the cost model knows of an engine on a device, and how well."""

    coefficients: Coefficients
    error: float
    """Relative: nine of ten measured times lay between time / (1 + error) and time * (1 + error)."""
    origin: str
    """What the coefficients are by: `data sheet`, an estimate, or a measured run."""
    dtype: str
    """Of the matrix products' inputs: a key of the device's flops."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """One request alone, and the engine full."""

    prefill: StepTime
    """The first step of the prompt, alone."""
    decode: StepTime
    """One sequence's next token."""
    full_decode: StepTime
    """The next token of as many sequences as are held."""
    ttft_s: float
    """Of a request that meets an idle engine."""
    token_s: float
    """Of one sequence alone."""
    full_token_s: float
    """With every slot taken, prompts of new requests among the steps."""
    full_tokens_per_s: float
    """Output tokens of the replica then."""
    prefill_tokens_per_s: float
    """Prompt tokens of a replica that does nothing else."""


def unmeasured(model: Model, device: Device, dtype: str) -> Speeds:
    """What is known of an engine on a device before it has run there: shares of the data sheet, overheads by size."""
    is_cpu = device.capability == "cpu"
    return Speeds(
        coefficients=scaled(DATA_SHEET, DATA_SHEET_MODEL, identity(model, dtype)),
        error=ESTIMATE_ERROR if is_cpu else DATA_SHEET_ERROR,
        origin="estimate from its cores" if is_cpu else "data sheet",
        dtype=dtype,
    )


def stepper(
    model: Model, device: Device, speeds: Speeds, *, layout: Layout, kv_bits: int | None = None
) -> Callable[[Sequence[Chunk]], StepTime]:
    """Says what a step over chunks takes, as a StepTime."""

    def timed(chunks: Sequence[Chunk]) -> StepTime:
        done = work(model, chunks, kv_bits=kv_bits)
        return step_time(done, device, speeds.coefficients, dtype=speeds.dtype, layers=model.layers, layout=layout)

    return timed


def step_seconds(
    model: Model, device: Device, speeds: Speeds, *, layout: Layout, kv_bits: int | None = None
) -> StepSeconds:
    """The same in seconds alone."""
    timed = stepper(model, device, speeds, layout=layout, kv_bits=kv_bits)
    return lambda chunks: timed(chunks).seconds


def speed(
    model: Model,
    device: Device,
    speeds: Speeds,
    *,
    layout: Layout,
    settings: EngineSettings,
    requests: Requests,
    slots: int,
) -> Speed:
    """A replica that holds `slots` sequences of these requests; at least one."""
    timed = stepper(model, device, speeds, layout=layout, kv_bits=settings.kv_bits)
    decode = Chunk(new_tokens=1, context_tokens=requests.context_tokens)
    first, *rest = prompt_chunks(requests.prompt_tokens, settings.batched_tokens)
    prefill = timed([first])
    ttft_s = prefill.seconds + sum(timed([chunk]).seconds for chunk in rest)
    full_token_s = mixed_step_s(requests, slots, settings=settings, step=lambda chunks: timed(chunks).seconds)
    alone = timed([decode])
    return Speed(
        prefill=prefill,
        decode=alone,
        full_decode=timed([Chunk(new_tokens=1, context_tokens=requests.context_tokens, count=slots)]),
        ttft_s=ttft_s,
        token_s=alone.seconds,
        full_token_s=full_token_s,
        full_tokens_per_s=slots / full_token_s,
        prefill_tokens_per_s=requests.prompt_tokens / ttft_s,
    )


def limit(step: StepTime) -> str:
    """What most of a step's time is spent on: arithmetic, reading weights, attention, exchange, or overhead."""
    linear = "arithmetic" if step.limit == "compute" else "reading weights"
    spent = {
        linear: step.linear_s,
        "attention over the cache": step.attention_s,
        "exchange": step.reduce_s,
        "overhead": step.overhead_s,
    }
    return max(spent, key=lambda part: spent[part])
