"""How is a file written so that nobody ever finds half of it?"""

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Beside it first, then in its place. Raises OSError."""
    aside = path.with_name(f".{path.name}.partial")
    aside.write_text(text)
    os.replace(aside, path)
