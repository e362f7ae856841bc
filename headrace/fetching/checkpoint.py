"""Is this folder a checkpoint that can be served, and if not, what is missing?"""

import json
from pathlib import Path

from headrace.fetching.cache import FetchError

WRITES = ("LMHeadModel", "ChatModel")
POOLS = ("Model", "ForTextEncoding", "Classification", "ForRewardModeling")
"""Ends of architectures' names, as vLLM reads them where nothing else says whether a model writes or pools."""
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "tekken.json")


def check(folder: Path) -> None:
    """Raises FetchError naming every missing piece: config.json, weights, tokenizer."""
    pieces = [_missing_config(folder), _missing_weights(folder), _missing_tokenizer(folder)]
    if missing := [piece for piece in pieces if piece]:
        raise FetchError(f"{folder} is not a whole checkpoint: {'; '.join(missing)}")


def weights_bytes(folder: Path) -> int:
    """Size of the weights on disk, in bytes."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def pools(folder: Path) -> bool:
    """Whether the model gives vectors or classes rather than text, by what vLLM goes by. Raises FetchError."""
    if (folder / "modules.json").is_file():
        return True
    names = architectures(folder)
    return bool(names) and names[0].endswith(POOLS) and not names[0].endswith(WRITES)


def architectures(folder: Path) -> list[str]:
    """As config.json names them; none where it doesn't. Raises FetchError."""
    try:
        return list(json.loads((folder / "config.json").read_text()).get("architectures") or ())
    except (OSError, ValueError, AttributeError):
        raise FetchError(f"{folder / 'config.json'} can't be read") from None


def _missing_config(folder: Path) -> str | None:
    return None if (folder / "config.json").is_file() else "config.json is missing"


def _missing_weights(folder: Path) -> str | None:
    indexes = list(folder.glob("*.safetensors.index.json"))
    if not indexes:
        return None if weights_bytes(folder) else "weights (*.safetensors) are missing"
    try:
        shards = {shard for index in indexes for shard in json.loads(index.read_text())["weight_map"].values()}
    except (ValueError, KeyError, AttributeError):
        return f"{indexes[0].name} can't be read"
    absent = sorted(shard for shard in shards if not (folder / shard).is_file())
    return f"{', '.join(absent)} missing, named by {indexes[0].name}" if absent else None


def _missing_tokenizer(folder: Path) -> str | None:
    if any((folder / name).is_file() for name in TOKENIZERS):
        return None
    return f"a tokenizer ({', '.join(TOKENIZERS)}) is missing"
