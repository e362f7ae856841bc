"""How does a model come from the Hugging Face hub?"""

import hashlib
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from headrace.fetching import checkpoint
from headrace.fetching.cache import FetchError
from headrace.fetching.progress import Progress, Step

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling
    from tqdm.auto import tqdm

MODULE_FOLDER = re.compile(r"\d+_\w+")
"""Where sentence-transformers keeps how a model pools, such as `1_Pooling`."""
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
KEPT_SUFFIXES = (".safetensors", ".json", ".jinja", ".txt", ".model", ".tiktoken")


def is_hub_id(source: str) -> bool:
    """Whether a source reads as owner/name."""
    return HUB_ID.fullmatch(source) is not None


def build(hub_id: str, folder: Path, progress: Progress) -> None:
    """Downloads a model's safetensors, configuration and tokenizer; what a killed run had whole is kept.

    Raises FetchError: offline, not found, gated, no safetensors, too little space, not a checkpoint, or
    damaged on the way (by the hub's own SHA-256).
    """
    from huggingface_hub import HfApi, snapshot_download

    with clear_errors(hub_id):
        repository = HfApi().model_info(hub_id, files_metadata=True)
        files = [file for file in repository.siblings or [] if _is_kept(file.rfilename)]
        _remove_unfinished(folder)
        _check_before(hub_id, files, folder)
        # The commit, not the branch: without a network, a branch's unfinished folder is taken for whole.
        snapshot_download(
            hub_id,
            revision=repository.sha,
            local_dir=folder,
            allow_patterns=[file.rfilename for file in files],
            tqdm_class=_bar_class(f"{hub_id}: downloading", sum(file.size or 0 for file in files), progress),
        )
    shutil.rmtree(folder / ".cache")
    _remove_others(folder, {file.rfilename for file in files})
    _check_after(hub_id, files, folder)
    checkpoint.check(folder)


def _is_kept(name: str) -> bool:
    # Other sub-folders hold the same weights for other programs, and so do Mistral's consolidated files.
    path = PurePosixPath(name)
    wanted = len(path.parts) == 1 or (len(path.parts) == 2 and MODULE_FOLDER.fullmatch(path.parts[0]) is not None)
    return path.suffix in KEPT_SUFFIXES and wanted and not name.startswith("consolidated")


def _check_before(hub_id: str, files: "list[RepoSibling]", folder: Path) -> None:
    if not any(file.rfilename.endswith(".safetensors") for file in files):
        raise FetchError(f"{hub_id}: it has no safetensors weights, the only kind that is fetched")
    needed_bytes = sum(file.size or 0 for file in files)
    there_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    free_bytes = shutil.disk_usage(folder).free
    if needed_bytes - there_bytes > free_bytes:
        raise FetchError(
            f"{hub_id}: it needs {needed_bytes / 1e9:.1f} GB, {folder.parent} has {free_bytes / 1e9:.1f} GB "
            "free; set HEADRACE_CACHE to a folder on a larger disk"
        )


def _check_after(hub_id: str, files: "list[RepoSibling]", folder: Path) -> None:
    for file in files:
        if file.lfs is None:
            continue
        with (folder / file.rfilename).open("rb") as found:
            if hashlib.file_digest(found, "sha256").hexdigest() == file.lfs.sha256:
                continue
        (folder / file.rfilename).unlink()
        raise FetchError(f"{hub_id}: {file.rfilename} was damaged on the way; fetch again, the rest is kept")


def _remove_unfinished(folder: Path) -> None:
    # Every run of the hub's library begins an unfinished file anew, under another name.
    for path in folder.rglob("*.incomplete"):
        path.unlink()


def _remove_others(folder: Path, names: set[str]) -> None:
    # An older commit's shards, when a killed run had begun with that one.
    for path in folder.iterdir():
        if path.is_file() and path.name not in names:
            path.unlink()


def _bar_class(phase: str, total_bytes: int, progress: Progress) -> "type[tqdm]":
    from tqdm.auto import tqdm

    class Bar(tqdm):
        """The hub's own seam for bars: drawn nowhere, the one that counts written bytes is passed on."""

        def __init__(self, *arguments, **settings) -> None:
            self._counts_bytes = str(settings.get("desc")).startswith("Reconstructing")
            super().__init__(*arguments, **settings | {"file": StringIO()})

        def update(self, n: float | None = 1) -> bool | None:
            drawn = super().update(n)
            if self._counts_bytes and total_bytes:
                progress(Step(phase=phase, share=min(1.0, self.n / total_bytes)))
            return drawn

    progress(Step(phase=phase, share=0.0))
    return Bar


@contextmanager
def clear_errors(hub_id: str) -> Iterator[None]:
    """Turns what the hub's library raises into FetchError, one line for the user."""
    import httpx
    from huggingface_hub import constants, errors

    try:
        yield
    except errors.GatedRepoError:
        page = f"{constants.ENDPOINT}/{hub_id}"
        raise FetchError(
            f"{hub_id}: gated; accept its terms on {page}, then set HF_TOKEN to a token of that account"
        ) from None
    except errors.RepositoryNotFoundError:
        raise FetchError(
            f"{hub_id}: no such folder here, no such model on {constants.ENDPOINT}; check the name, or set "
            "HF_TOKEN if it is private"
        ) from None
    except errors.OfflineModeIsEnabled:
        raise FetchError(f"{hub_id}: not in the cache, and HF_HUB_OFFLINE forbids to fetch it") from None
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, httpx.HTTPError) as error:
        cause = " ".join(str(error).split())[:200]
        raise FetchError(
            f"{hub_id}: {constants.ENDPOINT} can't be reached ({cause}); check the network and fetch again, "
            "or give a folder"
        ) from None
