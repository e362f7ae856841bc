"""Whole reports, as compressing a small model would give them."""

import hashlib
from typing import Any, Literal

from compress.recipe import Recipe
from compress.report import Gate, Interval, Lineage, Part, Quality, Report, Size, Speed, StepDone, Task

PARENT_PARTS = {"embedding": 56_623_104, "attention": 53_084_160, "feed_forward": 159_252_480, "norms": 70_272}
PARENT_PERPLEXITY = 14.84
PARENT_SPEED = {("prefill", 1): 1280.0, ("prefill", 8): 1310.0, ("decode", 1): 51.3, ("decode", 8): 294.0}
PARENT_FIRST_TOKEN_S = 0.412
LAYERS = 30
KV_BYTES = 23_040


def around(value: float, share: float = 0.03) -> Interval:
    """A value with an interval of some percent on both sides."""
    return Interval(value=value, low=value - abs(value) * share, high=value + abs(value) * share)


def depth_width() -> Report:
    """Pruned in depth and width: smaller, faster almost everywhere, worse."""
    influence = [round(0.02 + 0.5 / (1 + min(index, LAYERS - 1 - index)), 4) for index in range(LAYERS)]
    dropped = [14, 15, 16]
    return report(
        name="depth3-ffn25",
        steps=[
            {"do": "drop_layers", "layers": 3},
            {"do": "narrow_ffn", "share": 0.25, "by": "activation", "repair": True, "multiple": 64},
        ],
        found=[{"block_influence": influence, "dropped": dropped}, {"neurons": [1536, 1152]}],
        parts={"embedding": 56_623_104, "attention": 47_775_744, "feed_forward": 107_495_424, "norms": 63_360},
        kv_bytes=20_736,
        perplexity=27.6,
        kl=0.72,
        top1=0.618,
        speedups={("prefill", 1): 1.33, ("prefill", 8): 1.36, ("decode", 1): 1.01, ("decode", 8): 1.25},
        wait=0.76,
        break_even={"prefill at batch 1": 410_000.0, "prefill at batch 8": 395_000.0, "decode at batch 1": None},
    )


def w8a8() -> Report:
    """Quantized: much smaller, hardly worse, prefill faster, decode slower."""
    return report(
        name="w8a8",
        steps=[{"do": "quantize", "scheme": "w8a8", "by": "rtn"}],
        found=[{"group": None}],
        parts={
            "embedding": 56_623_104,
            "attention": 26_542_080,
            "feed_forward": 79_626_240,
            "norms": 70_272,
            "scales": 460_800,
        },
        perplexity=15.31,
        kl=0.032,
        top1=0.902,
        speedups={("prefill", 1): 1.21, ("prefill", 8): 1.24, ("decode", 1): 0.88, ("decode", 8): 1.02},
        wait=0.84,
        break_even={"prefill at batch 1": 96_000.0, "decode at batch 1": None},
    )


def masked() -> Report:
    """Half of the weights are zero, and nothing is gained: every result is negative."""
    return report(
        name="magnitude-2-4",
        steps=[{"do": "mask", "by": "magnitude", "pattern": "2:4", "rounds": 4, "recovery_steps": 20}],
        found=[{"sparsity": 0.5, "recovery_losses": [round(7.2 * 0.98**step + 2.9, 3) for step in range(80)]}],
        parts=PARENT_PARTS,
        perplexity=41_230.0,
        kl=5.9,
        top1=0.117,
        speedups={("prefill", 1): 0.99, ("prefill", 8): 1.0, ("decode", 1): 1.01, ("decode", 8): 0.91},
        wait=1.12,
        break_even={"prefill at batch 1": None, "decode at batch 1": None},
        labels=("Masks bring no serving gain: vLLM stores and multiplies the zeros.",),
    )


def distilled() -> Report:
    """Pruned, then trained: what pruning lost came back in part."""
    losses = [round(0.3 + 1.1 * 0.97**step, 4) for step in range(120)]
    curve = {
        "step": [float(step) for step in range(1, 121)],
        "loss": losses,
        "seconds": [31.5 * step for step in range(1, 121)],
    }
    return report(
        name="narrow-distilled",
        steps=[
            {"do": "narrow_ffn", "share": 0.25, "by": "activation", "repair": True, "multiple": 64},
            {"do": "distil", "steps": 120, "workers": 2},
        ],
        found=[{"neurons": [1536, 1152]}, {"learning_curve": curve, "teacher_seconds": 61.0}],
        parts={"embedding": 56_623_104, "attention": 53_084_160, "feed_forward": 119_439_360, "norms": 70_272},
        perplexity=17.1,
        kl=0.16,
        top1=0.801,
        speedups={("prefill", 1): 1.2, ("prefill", 8): 1.21, ("decode", 1): 1.08, ("decode", 8): 1.11},
        wait=0.84,
        break_even={"prefill at batch 1": 31_000_000.0, "decode at batch 1": 2_400_000.0},
    )


def report(
    *,
    name: str,
    steps: list[dict[str, Any]],
    found: list[dict[str, Any]],
    parts: dict[str, int],
    perplexity: float,
    kl: float,
    top1: float,
    speedups: dict[tuple[str, int], float],
    wait: float,
    break_even: dict[str, float | None],
    kv_bytes: int = KV_BYTES,
    labels: tuple[str, ...] = (),
) -> Report:
    """A report in which the figures given agree with each other."""
    recipe = Recipe.model_validate({"name": name, "source": "smollm2", "steps": steps})
    return Report(
        name=name,
        recipe=recipe.model_dump(mode="json"),
        labels=labels,
        lineage=_lineage(name, recipe),
        steps=tuple(_step(*both) for both in zip(steps, found, strict=True)),
        size=_size(parts, kv_bytes),
        gate=Gate(tokens=1024, kl=0.0031, top1=0.993, kl_limit=0.01, top1_limit=0.98, engine_dtype="bfloat16"),
        quality=(
            _quality("transformers", perplexity, kl, top1),
            _quality("vllm", perplexity * 1.013, None, top1 - 0.004),
        ),
        speed=(
            *(_speed(what, batch, ratio) for (what, batch), ratio in speedups.items()),
            _speed("first_token", 1, wait),
        ),
        tasks=(_task("topics_cloze", 0.25, 0.61, top1 - 0.9), _guessed()),
        break_even_tokens=break_even,
    )


def _size(parts: dict[str, int], kv_bytes: int) -> Size:
    names = sorted({*PARENT_PARTS, *parts})
    return Size(
        parent_bytes=sum(PARENT_PARTS.values()),
        bytes=sum(parts.values()),
        parent_parameters=134_515_008,
        parameters=sum(parts.values()) // 2,
        parent_kv_bytes_per_token=KV_BYTES,
        kv_bytes_per_token=kv_bytes,
        parts=tuple(
            Part.model_validate({"part": part, "parent_bytes": PARENT_PARTS.get(part, 0), "bytes": parts.get(part, 0)})
            for part in names
        ),
    )


def _quality(executor: Literal["transformers", "vllm"], perplexity: float, kl: float | None, top1: float) -> Quality:
    return Quality(
        executor=executor,
        parent_perplexity=around(PARENT_PERPLEXITY, 0.09),
        perplexity=around(perplexity, 0.1),
        ratio=around(perplexity / PARENT_PERPLEXITY, 0.025),
        kl=None if kl is None else around(kl, 0.05),
        top1=around(top1, 0.02),
    )


def _speed(what: str, batch: int, ratio: float) -> Speed:
    parent = PARENT_SPEED.get((what, batch), PARENT_FIRST_TOKEN_S)
    return Speed.model_validate(
        {
            "what": what,
            "batch": batch,
            "prompt_tokens": 512 if what != "decode" else 32,
            "output_tokens": 64 if what == "decode" else 1,
            "unit": "s" if what == "first_token" else "tokens/s",
            "parent": around(parent, 0.05),
            "artefact": around(parent * ratio, 0.05),
            "ratio": around(ratio, 0.04),
            "rounds": 7,
        }
    )


def _task(name: str, chance: float, parent: float, difference: float) -> Task:
    return Task(
        name=name,
        items=400,
        chance=chance,
        parent=around(parent, 0.08),
        artefact=around(parent + difference / 4, 0.08),
        difference=Interval(value=difference / 4, low=difference / 4 - 0.03, high=difference / 4 + 0.03),
        flips=0.09,
        above_chance=True,
    )


def _guessed() -> Task:
    even = around(0.252, 0.1)
    difference = Interval(value=0.004, low=-0.03, high=0.04)
    return Task(
        name="topics_hard",
        items=120,
        chance=0.25,
        parent=even,
        artefact=even,
        difference=difference,
        flips=0.3,
        above_chance=False,
    )


def _step(step: dict[str, Any], found: dict[str, Any]) -> StepDone:
    return StepDone(
        step=step,
        hash=_hash(f"{step}"),
        weights_hash=_hash(f"weights of {step}"),
        seconds=41.7,
        cpu_seconds=40.2,
        found=found,
    )


def _lineage(name: str, recipe: Recipe) -> Lineage:
    return Lineage(
        source="smollm2",
        parent_hash=_hash("parent"),
        parent_quantized="Q4_1, 4 bits",
        recipe_hash=recipe.hash,
        calibration_hash=_hash("calibration"),
        evaluation_hash=_hash("evaluation"),
        weights_hash=_hash(name),
        versions={"headrace": "0.1.0", "torch": "2.13.0", "transformers": "5.10.4", "vllm": "0.29.0"},
        machine={"cores": 2, "cpu": ["avx2", "avx512f"], "gpus": [], "memory_bytes": 33_285_996_544},
        made_at="2026-11-24T10:31:07+00:00",
    )


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
