"""What does the source say of each token of a text? Its likeliest next tokens, kept shard by shard.

A shard holds some blocks of the text and, for each of their places, token ids, ln p as float16, and ln p of all other
tokens together: 130 bytes a token for 32 of them. A run that was killed goes on after the last whole shard.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor

from compress import kept, stages
from compress.scores import Scores, with_rest
from compress.steps import Tell
from compress.text import Blocks

ROWS = 8
"""Blocks in a shard: what is lost at most when the engine is killed."""
SMALL_IDS = 2**16

Rows = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Lot:
    """The blocks of one shard."""

    number: int
    rows: Rows


@dataclass(frozen=True, kw_only=True, eq=False)
class Lesson:
    """One block of text, and what the source says of each of its places but the last."""

    tokens: Tensor
    """(tokens,)"""
    ids: Tensor
    """(tokens - 1, k): the likeliest next tokens."""
    logprobs: Tensor
    """(tokens - 1, k + 1): their ln p, and that of all others together."""


Teach = Callable[[Path, Path, list[Lot], int, Tell], None]
"""Keeps the lots: of a checkpoint, at a place, with so many likeliest tokens for each of theirs."""


def name(teacher_hash: str, text: Blocks, top_k: int) -> str:
    """What the shards' folder is called: by source, text, k and who computes."""
    return kept.name("teacher", teacher_hash, text.hash, top_k, ROWS, stages.engine_version())


def teach(checkpoint: Path, text: Blocks, top_k: int, place: Path, by: Teach, tell: Tell) -> Path:
    """The folder with all shards; those that lie there already are taken."""
    place.mkdir(parents=True, exist_ok=True)
    with FileLock(place.with_name(f".{place.name}.lock")):
        if left := missing(place, text):
            by(checkpoint, place, left, top_k, tell)
    return place


def teach_here(checkpoint: Path, place: Path, lots: list[Lot], top_k: int, tell: Tell) -> None:
    """By one engine of this process. Raises EngineFailed."""
    from compress.checkpoint_engine import checkpoint_engine

    tell("starting vLLM as teacher", None)
    longest = max(len(row) for lot in lots for row in lot.rows)
    with checkpoint_engine(checkpoint, max_model_len=longest + 1, max_num_seqs=ROWS, likeliest=top_k) as engine:
        for done, lot in enumerate(lots):
            tell("asking the teacher", done / len(lots))
            keep(place, lot, lambda rows: engine.scores(rows, top_k))


def missing(place: Path, text: Blocks) -> list[Lot]:
    """The lots whose shards are not there yet."""
    return [lot for lot in _lots(text) if not _shard(place, lot.number).exists()]


def keep(place: Path, lot: Lot, ask: Callable[[Rows], Scores]) -> None:
    """Writes one shard, whole or not at all, with the seconds that asking took."""
    start_s = time.perf_counter()
    said = ask(lot.rows)
    seconds = time.perf_counter() - start_s
    small = said.likeliest.max() < SMALL_IDS and np.max(lot.rows) < SMALL_IDS
    integers = np.uint16 if small else np.int32
    tensors = {
        "tokens": np.array(lot.rows).astype(integers),
        "ids": said.likeliest.astype(integers),
        "logprobs": with_rest(said.logprobs).astype(np.float16),
    }
    kept.file(
        _shard(place, lot.number), lambda partial: save_file(tensors, partial, metadata={"seconds": str(seconds)})
    )


def lesson(place: Path, block: int) -> Lesson:
    """One block of the text."""
    with safe_open(_shard(place, block // ROWS), framework="numpy") as file:
        row = slice(block % ROWS, block % ROWS + 1)
        tokens, ids, logprobs = (file.get_slice(key)[row][0] for key in ("tokens", "ids", "logprobs"))
    return Lesson(
        tokens=torch.from_numpy(tokens.astype(np.int64)),
        ids=torch.from_numpy(ids.astype(np.int64)),
        logprobs=torch.from_numpy(logprobs.astype(np.float32)),
    )


def seconds(place: Path) -> float:
    """What asking took, all shards together."""
    total = 0.0
    for path in place.glob("shard-*.safetensors"):
        with safe_open(path, framework="numpy") as file:
            total += float(file.metadata()["seconds"])
    return total


def _lots(text: Blocks) -> Iterator[Lot]:
    for number, start in enumerate(range(0, len(text.rows), ROWS)):
        yield Lot(number=number, rows=text.rows[start : start + ROWS])


def _shard(place: Path, number: int) -> Path:
    return place / f"shard-{number:05}.safetensors"
