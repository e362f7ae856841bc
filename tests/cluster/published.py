"""Models as published: their config.json, their tensors, and what vLLM 0.29 makes of them (configs/*.json)."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.model import Model
from cluster.model_config import describe
from cluster.tensors import Tensor, from_headers

FOLDER = Path(__file__).with_name("configs")
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


@dataclass(frozen=True, kw_only=True)
class Published:
    """One model."""

    source: str
    """Where its config.json is from."""
    config: dict[str, Any]
    tensors: tuple[Tensor, ...]
    """By transformers' names; the checkpoint's own may be split or joined otherwise."""
    expected: dict[str, int]
    """weight_bytes, where known as metadata.total_size of the source's model.safetensors.index.json; the others as
    vLLM said (tests/e2e/test_model_bytes.py)."""
    total_size: int | None
    """The source's, where it has one."""

    @property
    def model(self) -> Model:
        return describe(self.config, self.tensors)


def published(name: str) -> Published:
    """A model by its file's name."""
    held = json.loads((FOLDER / f"{name}.json").read_text())
    headers = {
        spelled: (dtype, shape)
        for pattern, (dtype, shape) in held["tensors"].items()
        for spelled in _spelled_out(pattern)
    }
    return Published(
        source=held["source"],
        config=held["config"],
        tensors=from_headers(headers),
        expected=held["expected"],
        total_size=held.get("total_size"),
    )


def _spelled_out(pattern: str) -> list[str]:
    """`layers.{0-2,5}.x` stands for layers 0, 1, 2 and 5."""
    found = re.search(r"\{(.+)\}", pattern)
    if not found:
        return [pattern]
    ends = [part.split("-") for part in found[1].split(",")]
    numbers = [number for first, *last in ends for number in range(int(first), int((last or [first])[0]) + 1)]
    return [pattern.replace(found[0], str(number)) for number in numbers]
