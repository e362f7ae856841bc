"""What does `headrace fetch` do?"""

from rich.console import Console

from headrace.failure import Failure
from headrace.fetching import FetchError
from headrace.fetching import fetch as bring


def fetch(source: str) -> None:
    """Brings a model here and says where it lies. Raises Failure."""
    console = Console(highlight=False)
    try:
        console.print(str(bring(source, console=console)), soft_wrap=True)
    except FetchError as error:
        raise Failure(str(error)) from None
