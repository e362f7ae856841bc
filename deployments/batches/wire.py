"""How does OpenAI write a batch, and how is one asked for?"""

from dataclasses import asdict
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from deployments.batches.batch import ENDPOINTS, WINDOW, Batch
from deployments.batches.state import OPEN, Status
from deployments.files.wire import kept_s
from deployments.openai_wire import ApiError

Key = Annotated[str, Meta(max_length=64)]
Value = Annotated[str, Meta(max_length=512)]


class ExpiresAfter(msgspec.Struct, forbid_unknown_fields=True):
    anchor: Literal["created_at"]
    seconds: int


class CreateBatch(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: Annotated[dict[Key, Value], Meta(max_length=16)] | None = None
    output_expires_after: ExpiresAfter | None = None


def asked(body: bytes) -> CreateBatch:
    """Raises ApiError(400)."""
    try:
        request = msgspec.json.decode(body, type=CreateBatch)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, f"The body asks for no batch: {error}.", code="invalid_request") from None
    if request.endpoint not in ENDPOINTS:
        raise ApiError(400, f"'endpoint' must be one of: {', '.join(ENDPOINTS)}.", param="endpoint")
    if "\0" in request.input_file_id:
        raise ApiError(400, "'input_file_id' is no file's.", param="input_file_id")
    if request.completion_window != WINDOW:
        raise ApiError(400, f"'completion_window' must be {WINDOW}.", param="completion_window")
    return request


def files_kept_s(request: CreateBatch) -> int | None:
    """Raises ApiError(400)."""
    asks = request.output_expires_after
    return None if asks is None else kept_s(asks.anchor, str(asks.seconds), "output_expires_after")


def batch_body(batch: Batch) -> dict[str, Any]:
    """A batch. `progress` is no field of OpenAI's."""
    progress = batch.progress
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "model": batch.model,
        "errors": {"object": "list", "data": list(batch.errors)} if batch.errors else None,
        "input_file_id": batch.input_file,
        "completion_window": WINDOW,
        "status": batch.status,
        "output_file_id": batch.output_file,
        "error_file_id": batch.error_file,
        "created_at": int(batch.created_s),
        "in_progress_at": _second(batch.in_progress_s),
        "expires_at": int(batch.expires_s),
        "finalizing_at": _second(batch.finalizing_s),
        "completed_at": _ended(batch, Status.COMPLETED),
        "failed_at": _ended(batch, Status.FAILED),
        "expired_at": _ended(batch, Status.EXPIRED),
        "cancelling_at": _second(batch.cancelling_s),
        "cancelled_at": _ended(batch, Status.CANCELLED),
        "request_counts": {name: asdict(progress)[name] for name in ("total", "completed", "failed")},
        "usage": _usage(batch),
        "metadata": batch.about,
        "progress": _progress(batch),
    }


def _progress(batch: Batch) -> dict[str, float | int | None] | None:
    """The share of its lines that have ended, and how long the others take at the pace of the last minute."""
    progress = batch.progress
    if batch.status not in OPEN or not progress.total:
        return None
    left_s = round(progress.left / progress.lines_per_s) if progress.lines_per_s else None
    return {"done": round(1 - progress.left / progress.total, 4), "seconds_left": left_s}


def _usage(batch: Batch) -> dict[str, Any]:
    progress = batch.progress
    return {
        "input_tokens": progress.input_tokens,
        "input_tokens_details": {"cached_tokens": progress.cached_tokens},
        "output_tokens": progress.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": progress.input_tokens + progress.output_tokens,
    }


def _ended(batch: Batch, status: Status) -> int | None:
    return _second(batch.ended_s) if batch.status is status else None


def _second(moment_s: float | None) -> int | None:
    return None if moment_s is None else int(moment_s)
