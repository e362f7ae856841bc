"""How is an HTML page of ours rendered, and how does it get into its file?"""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from headrace.failure import bad_input
from headrace.whole_file import write_whole


def environment() -> Environment:
    """Of all templates: they lie here, escape what they are given, and are given all that they name."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def write_page(html: str, path: Path, *, option: str = "--html") -> Path:
    """Where an option asked for it. Raises Failure."""
    try:
        write_whole(path, html)
    except OSError as error:
        raise bad_input(f"{option}: {path}: {(error.strerror or str(error)).lower()}") from None
    return path
