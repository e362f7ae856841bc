"""Where does a model lie on this machine? One that is not there yet is fetched, with a bar."""

from pathlib import Path

from headrace.failure import Failure
from headrace.fetching import FetchError, resolve
from headrace.fetching.progress import shown_on
from headrace.steps import Steps


def source_folder(source: str, steps: Steps, *, about: str = "") -> Path:
    """Its folder. Raises Failure, whose text begins with `about`."""
    try:
        with shown_on(steps.console) as progress:
            return resolve(source, progress=progress)
    except FetchError as error:
        raise Failure(f"{about}{error}") from None
