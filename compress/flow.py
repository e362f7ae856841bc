"""How does a recipe become an artefact? Step after step, then the gate, then what it lost and gained; then its name.

Everything is kept under `store` as it is finished, so that a run that was killed goes on after the last whole result.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from cluster.inventory import Machine
from compress import assemble, distil, gate, kept, source, spread, stages, steps, teacher
from compress.recipe import Distil, Recipe
from compress.report import FILE, Report
from compress.scores import Scores
from compress.spread import Spread
from compress.stages import Texts
from compress.text import Blocks


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a stage takes of the machine it runs on."""

    memory_bytes: int
    alone: bool = False
    """Nothing else of ours may run meanwhile: its seconds are measured."""
    spreads: bool = False
    """It only waits for others, to which it gives the work; what they take is asked for there."""


class Call(Protocol):
    """Runs a stage somewhere, with its arguments and at last a `Tell`; returns its result."""

    def __call__(self, work: Callable[..., Path], *arguments: Any, needs: Needs) -> Path: ...


def here(work: Callable[..., Path], *arguments: Any, needs: Needs) -> Path:
    """Runs a stage in this process."""
    return work(*arguments, _silent)


def _silent(doing: str, share: float | None) -> None:
    """Hears and says nothing."""


def run(
    recipe: Recipe,
    parent: Path,
    *,
    machine: Machine,
    store: Path,
    out: Path,
    call: Call = here,
    shared: Spread = spread.HERE,
    step_bytes: int = 0,
) -> Path:
    """The artefact's folder, `out`/name: a checkpoint that vLLM loads as it is, with report and reference.

    `parent`: the source's checkpoint; `store`: where finished stages lie; `shared`: who does what several processes
    share; `step_bytes`: memory that a step needs.
    Raises AlreadyQuantized, Unsupported, NoChange, Diverged, LostHead, GateFailed, EngineFailed, TextTooShort,
    FileError.
    """
    rounded_before = source.rounding(parent)
    said = stages.texts(recipe, stages.tokenizer(parent))
    parent_hash = kept.checkpoint_hash(parent)
    needs = Needs(memory_bytes=step_bytes)
    places = carry_out(recipe, parent, parent_hash, said, store, call, needs, shared)
    last, weights_hash = places[-1], steps.done(places[-1]).weights_hash
    names = stages.names(recipe, said, parent_hash, weights_hash, machine)
    at = {stage: store / name for stage, name in names.items()}
    call(stages.read, parent, None, said, at["read_parent"], needs=needs)
    call(stages.serve, last, recipe, said, at["serve"], needs=needs)
    passed = _gate(recipe, last, at)
    call(stages.read, last, at["read_parent"], said, at["read"], needs=needs)
    call(stages.serve, parent, recipe, said, at["serve_parent"], needs=needs)
    call(stages.race, parent, last, recipe, at["race"], needs=Needs(memory_bytes=2 * step_bytes, alone=True))
    found = assemble.report(
        recipe,
        parent=parent,
        parent_hash=parent_hash,
        rounded_before=rounded_before,
        said=said,
        places=places,
        gate=passed,
        at=at,
        machine=machine,
    )
    return place(found, last, said, at["serve"], out)


def carry_out(
    recipe: Recipe,
    parent: Path,
    parent_hash: str,
    said: Texts,
    store: Path,
    call: Call,
    needs: Needs,
    shared: Spread = spread.HERE,
) -> list[Path]:
    """The results of all steps, in order; those that are there already are taken."""
    places: list[Path] = []
    before, name = parent, parent_hash
    for step, text in zip(recipe.steps, said.work, strict=True):
        if isinstance(step, Distil):
            lessons, taught_by = _lessons(parent, parent_hash, step, text, store)
            name = steps.result_name(f"{name} {taught_by}", step, text, recipe.seed, said.gate)
            several = replace(needs, spreads=True)
            if not step.on_policy and not (store / name).is_dir():
                call(teacher.teach, parent, text, step.top_k, lessons, shared.teach, needs=several)
            mine = several if step.workers > 1 else needs
            before = call(distil.carry_out, before, lessons, step, recipe, store / name, shared, needs=mine)
        else:
            name = steps.result_name(name, step, text, recipe.seed, said.gate)
            before = call(steps.carry_out, before, step, recipe, store / name, needs=needs)
        places.append(before)
    return places


def _lessons(parent: Path, parent_hash: str, step: Distil, text: Blocks, store: Path) -> tuple[Path, str]:
    """Where a student finds what the source says, and all that decides it: the source itself, with on_policy."""
    if step.on_policy:
        return parent, f"{parent_hash} trl {version('trl')}"
    lessons = store / teacher.name(parent_hash, text, step.top_k)
    return lessons, lessons.name


def _gate(recipe: Recipe, last: Path, at: dict[str, Path]) -> Any:
    return gate.judge(
        Scores.load(at["serve"] / stages.GATE),
        Scores.load(last / steps.GATE_FILE),
        Scores.load(at["read_parent"] / stages.GATE),
        dtype=stages.engine_dtype(at["serve"]),
        rounded=recipe.rounds_activations,
    )


def place(found: Report, last: Path, said: Texts, served: Path, out: Path) -> Path:
    """Puts the artefact under its name: all of it, or what was there before stays."""
    target = out / found.name
    out.mkdir(parents=True, exist_ok=True)
    partial, old = out / f".{found.name}.partial", out / f".{found.name}.old"
    for folder in (partial, old):
        shutil.rmtree(folder, ignore_errors=True)
    partial.mkdir()
    for path in last.iterdir():
        if path.name not in (steps.FILE, steps.GATE_FILE):
            _link(path, partial / path.name)
    engine = Scores.load(served / stages.GATE)
    assemble.reference(said.gate, Scores.load(last / steps.GATE_FILE), engine, stages.engine_dtype(served), partial)
    (partial / FILE).write_text(found.model_dump_json(indent=1) + "\n")
    kept.to_disk(partial)
    if target.exists():
        os.rename(target, old)
    os.rename(partial, target)
    shutil.rmtree(old, ignore_errors=True)
    return target


def _link(path: Path, target: Path) -> None:
    """The same bytes under another name; a copy where the file system has no links between the two."""
    try:
        os.link(path, target)
    except OSError:
        shutil.copyfile(path, target)
