"""Which Ray is meant, and how is it asked: a run of this machine, or a cluster elsewhere?"""

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cluster.runs import Run
from headrace.endpoint import live_run
from headrace.failure import Failure, bad_input
from headrace.serve_rest import ServeRest, of_run

TOKEN = Path("~/.ray/auth_token")
"""Where Ray keeps a user's token when nothing else is said."""


@dataclass(frozen=True, slots=True)
class Head:
    """A Ray head that answers."""

    rest: ServeRest
    where: str
    """As the user knows it."""
    run: Run | None
    """The run of this machine, if it is one."""


def head(name: str, address: str | None, token_file: str | None) -> Head:
    """The head at an address, else that of a live run. Raises Failure when it does not answer."""
    if address is None:
        run = live_run(name)
        found = Head(of_run(run), f"run {name!r}", run)
    else:
        found = Head(ServeRest(_url(address), _token(token_file)), address, None)
    if not found.rest.is_up():
        raise Failure(f"no Ray dashboard answers at {found.where}: is the address right, and the token (--token-file)?")
    return found


def _url(address: str) -> str:
    url = address if "://" in address else f"http://{address}"
    parts = urlsplit(url)
    try:
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port is not None
    except ValueError:
        known = False
    if not known:
        raise bad_input(f"--address: should be the dashboard's, such as http://head:8265, got {address!r}")
    return url.rstrip("/")


def _token(given: str | None) -> str | None:
    """The user's token, looked for as Ray does."""
    if given is None and (told := os.environ.get("RAY_AUTH_TOKEN")):
        return told
    file = Path(given or os.environ.get("RAY_AUTH_TOKEN_PATH") or TOKEN).expanduser()
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        if given is None:
            return None
        raise bad_input(f"--token-file: there is no file {given}") from None
    except OSError as error:
        raise bad_input(f"--token-file: can't read {file}: {error.strerror}") from None
