"""How likely does a model find each token of a text, and how far apart are two such opinions?

Row r, place p is about token p + 1 of block r, given all before it in the block.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from compress.layers import Report
from compress.text import Blocks

KEPT = 256
"""Likeliest tokens kept for each place; all others count as one. Keeps a score small and moves KL by under 1 %."""
IMPOSSIBLE = -50.0
"""ln p below which a token doesn't count."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """What one executor says of one text; natural logarithms."""

    nats: NDArray[np.float32]
    """(rows, places): -ln p(the token that follows)."""
    likeliest: NDArray[np.int32]
    """(rows, places, kept): token ids, the likeliest first."""
    logprobs: NDArray[np.float32]
    """(rows, places, kept): their ln p."""

    def save(self, path: Path) -> None:
        """Writes one safetensors file."""
        save_file({"nats": self.nats, "likeliest": self.likeliest, "logprobs": self.logprobs}, path)

    @staticmethod
    def load(path: Path) -> "Scores":
        """What `save` wrote."""
        return Scores(**load_file(path))


def score(
    model: Any, text: Blocks, parent: Scores | None = None, report: Report = lambda share: None
) -> tuple[Scores, NDArray[np.float32] | None]:
    """Scores of a transformers model, and with a parent's scores also KL(parent || model), (rows, places), nats.

    KL is over the parent's kept tokens and all others as one: a lower bound.
    """
    nats, likeliest, logprobs, distances = [], [], [], []
    for number, row in enumerate(text.rows):
        found = _logprobs(model, row)
        top = found.topk(min(KEPT, found.shape[1]), dim=1)
        nats.append(-found.gather(1, torch.tensor(row[1:])[:, None])[:, 0].numpy())
        likeliest.append(top.indices.int().numpy())
        logprobs.append(top.values.numpy())
        if parent is not None:
            theirs = found.gather(1, torch.from_numpy(parent.likeliest[number]).long()).numpy()
            distances.append(coarse_kl(parent.logprobs[number], theirs))
        report((number + 1) / len(text.rows))
    scores = Scores(nats=np.stack(nats), likeliest=np.stack(likeliest), logprobs=np.stack(logprobs))
    return scores, np.stack(distances) if parent is not None else None


def coarse_kl(ours: NDArray[Any], theirs: NDArray[Any]) -> NDArray[np.float32]:
    """KL(ours || theirs) over the last axis's tokens and all others as one: ln p of the same tokens, of each."""
    one, other = with_rest(ours), with_rest(theirs)
    return (np.exp(one) * (one - other)).sum(axis=-1).astype(np.float32)


def agreement(one: Scores, other: Scores) -> NDArray[np.bool_]:
    """(rows, places): whether both find the same token likeliest."""
    return one.likeliest[..., 0] == other.likeliest[..., 0]


def distance(engine: Scores, compressor: Scores) -> NDArray[np.float32]:
    """(rows, places): KL(engine || compressor) over the tokens that both kept and all others as one: a lower bound."""
    ours = np.full(engine.likeliest.shape, IMPOSSIBLE)
    theirs = ours.copy()
    for rank in range(engine.likeliest.shape[-1]):
        same = compressor.likeliest == engine.likeliest[..., rank, None]
        kept = same.any(axis=-1)
        ours[..., rank][kept] = engine.logprobs[..., rank][kept]
        theirs[..., rank][kept] = compressor.logprobs[same]
    return coarse_kl(ours, theirs)


def with_rest(logprobs: NDArray[Any]) -> NDArray[np.float64]:
    """ln p of some tokens, and as one more outcome ln p of all others together."""
    wide = logprobs.astype(np.float64)
    rest = np.log(np.maximum(1.0 - np.exp(wide).sum(axis=-1, keepdims=True), 1e-9))
    return np.concatenate([np.maximum(wide, IMPOSSIBLE), rest], axis=-1)


def _logprobs(model: Any, row: tuple[int, ...]) -> torch.Tensor:
    with torch.inference_mode():
        logits = model(torch.tensor([row], device=model.device), use_cache=False).logits[0, :-1]
        return logits.float().log_softmax(dim=-1).cpu()
