"""Were a checkpoint's weights rounded before, and how? What compression loses is relative to that."""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import safe_open

GROUP = 32
"""Weights that share a scale in the usual 4-bit formats, or a part of those that do."""
FOUR_BITS = 16
ROWS, MAPS = 16, 4
"""Rows of so many linear maps are looked at."""


class AlreadyQuantized(ValueError):
    """A checkpoint that is stored quantized: its weights can't be changed any more."""


def rounding(folder: Path) -> str | None:
    """How the weights were rounded before, in words; None where nothing shows. Raises AlreadyQuantized."""
    stored = json.loads((folder / "config.json").read_text()).get("quantization_config")
    if stored is not None:
        method = stored.get("quant_method", "some method") if isinstance(stored, dict) else stored
        raise AlreadyQuantized(f"{folder} is stored quantized ({method}): start from the model it was made of")
    distinct = [most for rows in _some_maps(folder) if (most := _most_distinct(rows))]
    if distinct and max(distinct) <= FOUR_BITS:
        return f"to 4 bits: no {GROUP} neighbours in a row hold more than {FOUR_BITS} values"
    return None


def _some_maps(folder: Path) -> Iterator[torch.Tensor]:
    left = MAPS
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  safetensors' files are no mappings
                if left and name.endswith("_proj.weight") and file.get_slice(name).get_shape()[1] % GROUP == 0:
                    left -= 1
                    yield file.get_slice(name)[:ROWS]


def _most_distinct(rows: torch.Tensor) -> int:
    """Values in a group; 0 where zeros leave too few others, in every group, to tell rounding from pruning."""
    groups = rows.float().unflatten(1, (-1, GROUP)).flatten(0, 1)
    telling = groups[(groups != 0).sum(dim=-1) > FOUR_BITS]
    return int((telling.sort(dim=-1).values.diff(dim=-1) != 0).sum(dim=-1).max()) + 1 if len(telling) else 0
