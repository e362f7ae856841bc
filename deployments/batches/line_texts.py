"""What stands in the output and error files of a batch for each of its lines? OpenAI's form."""

from typing import Any

import msgspec

from deployments.batches.input import Wrong, custom_id_of
from deployments.batches.state import Status
from deployments.in_process import Answer

UNASKED = {
    Status.EXPIRED: ("batch_expired", "This request was not answered before the batch expired."),
    Status.CANCELLED: ("batch_cancelled", "This request was not answered before the batch was cancelled."),
}
"""What is said of lines that a batch leaves, by how it ended."""


def answered(batch: str, number: int, custom_id: str, answer: Answer) -> tuple[bool, bytes]:
    """Whether a line goes to the output file, and what stands there or in the error file."""
    name = _name(batch, number)
    try:
        # On one line, as the file has a line for each answer.
        body = msgspec.Raw(msgspec.json.format(answer.body, indent=-1) if b"\n" in answer.body else answer.body)
        msgspec.json.decode(body, type=msgspec.Raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        message = f"The answer, of status {answer.status}, is no JSON: {len(answer.body)} bytes."
        return False, _failed(name, custom_id, {"code": "no_json", "message": message})
    response = {"status_code": answer.status, "request_id": name, "body": body}
    line = {"id": name, "custom_id": custom_id, "response": response, "error": None}
    return 200 <= answer.status < 300, msgspec.json.encode(line) + b"\n"


def wrong(batch: str, line: Wrong) -> bytes:
    """Of a line that could not be asked."""
    return _failed(_name(batch, line.number), line.custom_id, line.told())


def unasked(batch: str, number: int, text: bytes, status: Status) -> bytes:
    """Of a line that was left when its batch ended so."""
    code, message = UNASKED[status]
    return _failed(_name(batch, number), custom_id_of(text), {"code": code, "message": message})


def _name(batch: str, number: int) -> str:
    return f"batch_req_{batch.removeprefix('batch_')}_{number}"


def _failed(name: str, custom_id: str | None, error: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"id": name, "custom_id": custom_id, "response": None, "error": error}) + b"\n"
