"""What does the report of an artefact say? Puts together what the stages kept."""

from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from cluster.inventory import Machine
from compress import report as values
from compress import shape, stages, statistics, steps
from compress.recipe import Mask, Recipe
from compress.scores import Scores, agreement
from compress.stages import Texts
from compress.text import Blocks
from deployments import reference as references
from deployments.numbers_check import TOLERANCE, mean_distance
from deployments.reference import Prompt, Reference

MARGIN = 2.0
"""Machines differ in how they round: an engine elsewhere may be so many times further off than the one of the gate."""


def report(
    recipe: Recipe,
    *,
    parent: Path,
    parent_hash: str,
    rounded_before: str | None,
    said: Texts,
    places: list[Path],
    gate: values.Gate,
    at: dict[str, Path],
    machine: Machine,
) -> values.Report:
    """The whole report; `places`: results of the steps; `at`: results of the stages, by name."""
    done = tuple(steps.done(place) for place in places)
    speeds = stages.speeds(at["race"])
    seconds = sum(step.seconds for step in done)
    return values.Report(
        name=recipe.name,
        recipe=recipe.model_dump(mode="json"),
        labels=tuple(_labels(recipe, rounded_before, speeds)),
        lineage=values.Lineage(
            source=recipe.source,
            parent_hash=parent_hash,
            parent_quantized=rounded_before,
            recipe_hash=recipe.hash,
            calibration_hash=said.calibration.hash,
            evaluation_hash=said.evaluation.hash,
            weights_hash=done[-1].weights_hash,
            versions=steps.versions() | {"vllm": stages.engine_version(), "headrace": version("headrace")},
            machine=stages.machine_words(machine),
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        ),
        steps=done,
        size=_size(shape.read(parent), shape.read(places[-1])),
        gate=gate,
        quality=(
            _quality("transformers", at["read_parent"], at["read"]),
            _quality("vllm", at["serve_parent"], at["serve"]),
        ),
        speed=speeds,
        tasks=_tasks(at),
        break_even_tokens={f"{line.what} at batch {line.batch}": even for line, even in _break_even(speeds, seconds)},
    )


def reference(gate: Blocks, compressor: Scores, engine: Scores, dtype: str, folder: Path) -> None:
    """Writes what the numbers check of a serving engine compares with: the compressor's own log-probabilities.

    Where the engine that passed the gate was further off than others of its dtype, as with rounded activations, the
    reference allows MARGIN times its distance.
    """
    prompts = tuple(
        Prompt(token_ids=row, logprobs=tuple(-round(float(nats), 6) for nats in said))
        for row, said in zip(gate.rows, compressor.nats, strict=True)
    )
    passed = max(mean_distance(list(one), list(other)) for one, other in zip(engine.nats, compressor.nats, strict=True))
    usual = TOLERANCE.get(dtype, TOLERANCE["bfloat16"])
    references.save(
        Reference(
            made_by=f"headrace compress, transformers {version('transformers')}",
            prompts=prompts,
            tolerance=round(MARGIN * passed, 3) if MARGIN * passed > usual else None,
        ),
        folder,
    )


def _labels(recipe: Recipe, rounded_before: str | None, speeds: tuple[values.Speed, ...]) -> Iterator[str]:
    if any(isinstance(step, Mask) for step in recipe.steps):
        yield "Masks bring no serving gain: vLLM stores and multiplies the zeros."
    if rounded_before:
        yield f"The source's weights were rounded before, {rounded_before}: losses are relative to that."
    slower = [line for line in speeds if line.unit == "tokens/s" and line.ratio.high < 1]
    if slower:
        cases = ", ".join(f"{line.what} at batch {line.batch}" for line in slower)
        yield f"Slower than its parent on this machine: {cases}."


def _size(parent: shape.Shape, artefact: shape.Shape) -> values.Size:
    before, after = parent.bytes_by_part, artefact.bytes_by_part
    return values.Size(
        parent_bytes=parent.bytes,
        bytes=artefact.bytes,
        parent_parameters=parent.parameters,
        parameters=artefact.parameters,
        parent_kv_bytes_per_token=parent.kv_bytes_per_token,
        kv_bytes_per_token=artefact.kv_bytes_per_token,
        parts=tuple(
            values.Part(part=part, parent_bytes=before.get(part, 0), bytes=after.get(part, 0))
            for part in shape.PARTS
            if part in before or part in after
        ),
    )


def _quality(executor: Any, parent: Path, artefact: Path) -> values.Quality:
    one, other = (Scores.load(folder / stages.EVALUATION) for folder in (parent, artefact))
    kl = artefact / stages.KL
    return values.Quality(
        executor=executor,
        parent_perplexity=statistics.perplexity(one.nats),
        perplexity=statistics.perplexity(other.nats),
        ratio=statistics.perplexity_ratio(artefact=other.nats, parent=one.nats),
        kl=statistics.block_mean(np.load(kl)) if kl.exists() else None,
        top1=statistics.block_mean(agreement(one, other)),
    )


def _tasks(at: dict[str, Path]) -> tuple[values.Task, ...]:
    from compress.tasks import compared

    parent, artefact = stages.answers(at["serve_parent"]), stages.answers(at["serve"])
    return tuple(compared(parent=parent[name], artefact=artefact[name]) for name in artefact)


def _break_even(speeds: tuple[values.Speed, ...], seconds: float) -> Iterator[tuple[values.Speed, float | None]]:
    """Tokens whose saved seconds are as many as the steps took; None where it isn't faster beyond doubt."""
    for line in speeds:
        if line.unit == "tokens/s":
            saved_s = 1 / line.parent.value - 1 / line.artefact.value
            yield line, seconds / saved_s if line.ratio.low > 1 else None
