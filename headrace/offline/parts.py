"""What of a job is written, where, and is it the same job?

A part holds the rows of one partition with their answers, in the form that they came in. It is there whole or not.
"""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from compress import kept
from deployments.offline_answers import Answer
from headrace.failure import Failure, bad_input
from headrace.offline.rows import Asks
from headrace.offline.table import Partition, Row, Table, arrow
from headrace.whole_file import write_whole

FORMAT = 1
ADDED = ("answer", "finish_reason", "prompt_tokens", "output_tokens", "error")
"""Columns beside those of the input."""


def names(prefix: str) -> tuple[str, ...]:
    """Of the columns that are added."""
    return tuple(prefix + name for name in ADDED)


def claim(out: Path, *, tables: Sequence[Table], partition_rows: int, model: str, ask: Asks, prefix: str) -> None:
    """Makes the folder that of this job, or finds that it is. Raises Failure."""
    job: dict[str, Any] = {
        "format": FORMAT,
        "model": model,
        "rows": asdict(ask),
        "partition_rows": partition_rows,
        "prefix": prefix,
        "input": [{"name": Path(table.path).name, "sha256": table.hash, "rows": table.rows} for table in tables],
    }
    file = out / "batch.json"
    try:
        out.mkdir(parents=True, exist_ok=True)
        before = json.loads(file.read_text()) if file.exists() else None
        if before is None:
            if any(out.glob("part-*")):
                raise bad_input(f"{out} has parts of something else: take another folder")
            write_whole(file, json.dumps(job, indent=1) + "\n")
            return
    except (OSError, ValueError) as error:
        raise Failure(f"{file}: {error}") from None
    if wrong := [name for name in job if not isinstance(before, dict) or before.get(name) != job[name]]:
        raise bad_input(
            f"{out} has answers of another job ({', '.join(wrong)} differ, see {file.name}): take another folder"
        )


def path(out: Path, partition: Partition) -> Path:
    """Where the rows of a partition are, or will be."""
    return out / f"part-{partition.number:05}.{partition.kind}"


def write(out: Path, partition: Partition, rows: Sequence[Row], answers: Sequence[Answer], prefix: str) -> None:
    """One part, whole or not at all. Raises OSError."""
    added = [dict(zip(names(prefix), _told(answer), strict=True)) for answer in answers]
    lines = {"jsonl": _lines, "csv": _records, "parquet": _table}[partition.kind]
    kept.file(path(out, partition), lambda partial: lines(partial, partition, rows, added))


def clear(out: Path) -> None:
    """Removes what was being written when its process ended."""
    for partial in out.glob(".part-*.partial"):
        partial.unlink(missing_ok=True)


def errors(out: Path, partition: Partition, prefix: str) -> list[str]:
    """Why rows of a part have no answer."""
    part, name = path(out, partition), prefix + "error"
    if partition.kind == "parquet":
        from pyarrow import parquet

        found = parquet.read_table(part, columns=[name])[name].to_pylist()
    elif partition.kind == "csv":
        with part.open(newline="", encoding="utf-8") as file:
            found = [row[name] for row in csv.DictReader(file)]
    else:
        found = [json.loads(line)[name] for line in part.read_bytes().splitlines()]
    return [error for error in found if error]


def _told(answer: Answer) -> tuple[Any, ...]:
    return answer.text, answer.finish_reason, answer.prompt_tokens, answer.output_tokens, answer.error


def _lines(partial: Path, _partition: Partition, rows: Sequence[Row], added: Sequence[dict[str, Any]]) -> None:
    with partial.open("wb") as file:
        for row, more in zip(rows, added, strict=True):
            file.write(_json({**row.fields, **more}) + b"\n")


def _json(fields: dict[str, Any]) -> bytes:
    try:
        return json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half a character
        return json.dumps(fields).encode()


def _records(partial: Path, partition: Partition, rows: Sequence[Row], added: Sequence[dict[str, Any]]) -> None:
    columns = [*partition.columns, *(added[0] if added else ())]
    with partial.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns)
        table.writeheader()
        table.writerows({**row.fields, **more} for row, more in zip(rows, added, strict=True))


def _table(partial: Path, partition: Partition, _rows: Sequence[Row], added: Sequence[dict[str, Any]]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    table = arrow(partition)
    for name in added[0]:
        kind = pa.int64() if name.endswith("_tokens") else pa.string()
        table = table.append_column(name, pa.array([more[name] for more in added], kind))
    parquet.write_table(table, partial)
