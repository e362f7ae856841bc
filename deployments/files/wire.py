"""How does OpenAI write files and lists of things, and how does a client say which part of a list it wants?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard
from urllib.parse import parse_qs

from deployments.files.stored_files import File
from deployments.openai_wire import ApiError

BATCH, OUTPUT = "batch", "batch_output"
"""Purposes of files: of what comes in, and of what batches make."""
INPUT_KEPT_S = 30 * 24 * 3600
"""An input file expires after so long where its owner does not say: as with OpenAI."""
KEPT_S = (3600, 2592000)
"""For how long an owner may ask files to be kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What part of a list is asked for."""

    limit: int
    after: str | None
    newest_first: bool = True
    purpose: str | None = None


def page(query: bytes, *, usual: int, most: int) -> Page:
    """Raises ApiError(400)."""
    asked = {name: values[-1] for name, values in parse_qs(query.decode("latin-1"), keep_blank_values=True).items()}
    if any("\0" in value for value in asked.values()):
        raise ApiError(400, "The query has a character that nothing is called by.", code="invalid_request")
    text = asked.get("limit", str(usual))
    limit = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not 1 <= limit <= most:
        raise ApiError(400, f"'limit' must be from 1 to {most}.", param="limit")
    order = asked.get("order", "desc")
    if order not in ("asc", "desc"):
        raise ApiError(400, "'order' must be asc or desc.", param="order")
    return Page(
        limit=limit, after=asked.get("after") or None, newest_first=order == "desc", purpose=asked.get("purpose")
    )


def listing(data: Sequence[dict[str, Any]], limit: int) -> dict[str, Any]:
    """A page of a list, of which one more than `limit` was looked for."""
    shown = list(data[:limit])
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": len(data) > limit,
    }


def file_body(file: File) -> dict[str, Any]:
    """A file."""
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size_bytes,
        "created_at": int(file.created_s),
        "expires_at": None if file.expires_s is None else int(file.expires_s),
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def kept_s(anchor: str | None, seconds: str | None, name: str) -> int:
    """What `expires_after` asks for. Raises ApiError(400)."""
    if anchor != "created_at":
        raise ApiError(400, f"'{name}.anchor' must be created_at.", param=name)
    least, most = KEPT_S
    number = int(seconds) if _is_number(seconds) else 0
    if not least <= number <= most:
        raise ApiError(400, f"'{name}.seconds' must be from {least} to {most}.", param=name)
    return number


def _is_number(text: str | None) -> TypeGuard[str]:
    return text is not None and text.isascii() and text.isdigit() and len(text) < 10
