"""Where on this machine does what belongs to a store lie that is not in it?"""

import hashlib
import os
from pathlib import Path

from deployments.fleet import SQLITE


def store_path(url: str, what: str) -> Path:
    """Beside the store's file, or else with what lasts until the machine starts anew."""
    if url.startswith(SQLITE):
        return Path(f"{url.removeprefix(SQLITE)}.{what}")
    return Path("/tmp") / f"headrace-{os.getuid()}" / what / hashlib.sha256(url.encode()).hexdigest()[:12]


def make_private(folder: Path) -> None:
    """For this user alone, with the folders above it that are missing. Raises OSError."""
    for each in (*reversed(folder.parents), folder):
        each.mkdir(mode=0o700, exist_ok=True)  # each, or only the last would be ours alone
