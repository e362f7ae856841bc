"""What do the routes for files and batches look like in the OpenAPI document?"""

from collections.abc import Callable
from typing import Any

from deployments.batches.batch import ENDPOINTS, WINDOW
from deployments.batches.state import Status
from deployments.files.wire import BATCH, KEPT_S, OUTPUT

Schema = dict[str, Any]
Named = Callable[[str], Schema]

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer"}
MAYBE_TEXT: Schema = {"type": ["string", "null"]}
MAYBE_NUMBER: Schema = {"type": ["integer", "null"]}
METADATA: Schema = {
    "type": ["object", "null"],
    "maxProperties": 16,
    "propertyNames": {"maxLength": 64},
    "additionalProperties": {"type": "string", "maxLength": 512},
}


def paths(named: Named) -> Schema:
    """The routes. `named` refers to a schema of the document."""
    one_file, one_batch = _by_id("file_id"), _by_id("batch_id")
    content = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
    listed = [_query("limit", NUMBER), _query("after", TEXT)]
    ordered = [_query("order", {"enum": ["asc", "desc"]}), _query("purpose", TEXT)]
    upload = {"multipart/form-data": {"schema": _upload()}}
    create = {"application/json": {"schema": _create()}}
    return {
        "/v1/files": {
            "get": _operation("The files", named, "Files") | {"parameters": [*listed, *ordered]},
            "post": _operation("Takes a file in", named, "File") | {"requestBody": _required(upload)},
        },
        "/v1/files/{file_id}": {
            "get": _operation("One file", named, "File") | one_file,
            "delete": _operation("Deletes a file", named, "DeletedFile") | one_file,
        },
        "/v1/files/{file_id}/content": {"get": _operation("What it holds", named, content=content) | one_file},
        "/v1/batches": {
            "get": _operation("The batches, newest first", named, "Batches") | {"parameters": listed},
            "post": _operation("Takes a batch in", named, "Batch") | {"requestBody": _required(create)},
        },
        "/v1/batches/{batch_id}": {"get": _operation("One batch", named, "Batch") | one_batch},
        "/v1/batches/{batch_id}/cancel": {"post": _operation("Cancels a batch", named, "Batch") | one_batch},
    }


def answers(named: Named) -> Schema:
    """The schemas that they name."""
    times = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
    counts = _object(total=NUMBER, completed=NUMBER, failed=NUMBER)
    return {
        "File": _object(
            id=TEXT,
            object={"enum": ["file"]},
            bytes=NUMBER,
            created_at=NUMBER,
            expires_at=MAYBE_NUMBER,
            filename=TEXT,
            purpose={"enum": [BATCH, OUTPUT]},
            status=TEXT,
        ),
        "DeletedFile": _object(id=TEXT, object={"enum": ["file"]}, deleted={"enum": [True]}),
        "Files": _list(named("File")),
        "Batch": _object(
            id=TEXT,
            object={"enum": ["batch"]},
            endpoint={"enum": list(ENDPOINTS)},
            model=MAYBE_TEXT,
            errors={"type": ["object", "null"]},
            input_file_id=TEXT,
            completion_window={"enum": [WINDOW]},
            status={"enum": [str(status) for status in Status]},
            output_file_id=MAYBE_TEXT,
            error_file_id=MAYBE_TEXT,
            created_at=NUMBER,
            expires_at=NUMBER,
            **{f"{time}_at": MAYBE_NUMBER for time in times},
            request_counts=counts,
            usage={"type": "object"},
            metadata=METADATA,
            progress={"type": ["object", "null"]},
        ),
        "Batches": _list(named("Batch")),
    }


def _operation(summary: str, named: Named, answer: str = "", content: Schema | None = None) -> Schema:
    error = {"application/json": {"schema": named("Error")}}
    told = content or {"application/json": {"schema": named(answer)}}
    return {
        "summary": summary,
        "responses": {
            "200": {"description": summary, "content": told},
            "4XX": {"description": "Refused; 404 also where it is another tenant's", "content": error},
            "503": {"description": "Store or files can't be reached", "content": error},
        },
    }


def _by_id(name: str) -> Schema:
    schema = {"type": "string", "minLength": 1}
    return {"parameters": [{"name": name, "in": "path", "required": True, "schema": schema}]}


def _query(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "schema": schema}


def _required(content: Schema) -> Schema:
    return {"required": True, "content": content}


def _upload() -> Schema:
    least, most = KEPT_S
    return {
        "type": "object",
        "properties": {
            "file": {"type": "string", "format": "binary"},
            "purpose": {"enum": [BATCH]},
            "expires_after[anchor]": {"enum": ["created_at"]},
            "expires_after[seconds]": {"type": "integer", "minimum": least, "maximum": most},
        },
        "required": ["file", "purpose"],
    }


def _create() -> Schema:
    least, most = KEPT_S
    seconds = {"type": "integer", "minimum": least, "maximum": most}
    return {
        "type": "object",
        "properties": {
            "input_file_id": TEXT,
            "endpoint": {"enum": list(ENDPOINTS)},
            "completion_window": {"enum": [WINDOW]},
            "metadata": METADATA,
            "output_expires_after": _object(anchor={"enum": ["created_at"]}, seconds=seconds),
        },
        "required": ["input_file_id", "endpoint", "completion_window"],
        "additionalProperties": False,
    }


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(items: Schema) -> Schema:
    return _object(
        object={"enum": ["list"]},
        data={"type": "array", "items": items},
        first_id=MAYBE_TEXT,
        last_id=MAYBE_TEXT,
        has_more={"type": "boolean"},
    )
