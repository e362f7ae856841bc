"""What does a model on a hub consist of? config.json and the headers of its safetensors files come, nothing else."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from cluster.config_keys import open_config
from cluster.tensors import Tensor, from_headers
from headrace.fetching import hub
from headrace.fetching.cache import FetchError

WEIGHTS = {"model.safetensors", "model.safetensors.index.json"}
"""One of them tells of all weights."""


def headers(hub_id: str) -> tuple[dict[str, Any], tuple[Tensor, ...]]:
    """config.json and tensors. Raises FetchError: offline, not found, gated, no safetensors."""
    from huggingface_hub import HfApi, hf_hub_download

    if not hub.is_hub_id(hub_id):
        raise FetchError(f"{hub_id!r} is no folder and no hub id (owner/name)")
    with hub.clear_errors(hub_id), _no_bars(), TemporaryDirectory() as folder:
        known = HfApi().model_info(hub_id)
        if not WEIGHTS.intersection(file.rfilename for file in known.siblings or ()):
            raise FetchError(f"{hub_id}: it has no safetensors weights, the only kind that is planned for")
        files = HfApi().get_safetensors_metadata(hub_id, revision=known.sha).files_metadata
        hf_hub_download(hub_id, "config.json", revision=known.sha, local_dir=folder)
        config = open_config(Path(folder))
    found = {name: (info.dtype, info.shape) for file in files.values() for name, info in file.tensors.items()}
    return config, from_headers(found)


@contextmanager
def _no_bars() -> Iterator[None]:
    """Headers take a moment: the hub's own bars would stand in the plan's way."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
