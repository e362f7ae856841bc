"""Which rows do files hold, and how are they cut into partitions that can be read each by itself?

JSON lines and CSV are cut at bytes, Parquet at rows; a partition never holds rows of two files.
"""

import csv
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from headrace.failure import bad_input

KINDS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".csv": "csv", ".parquet": "parquet"}
LONGEST_CELL = 1 << 30
csv.field_size_limit(LONGEST_CELL)  # Python's own is 128 KiB: a prompt may be longer


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """One file."""

    path: str
    kind: str
    size_bytes: int
    hash: str
    columns: tuple[str, ...]
    """Of JSON lines those of the first row that can be read."""
    rows: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Partition:
    """Some rows of one file, one after the other."""

    number: int
    """Over all files."""
    path: str
    kind: str
    first_row: int
    """Its number in the file, from 1 on; of JSON lines that of its line."""
    rows: int
    begin: int
    """In bytes; of Parquet in rows."""
    end: int
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """As it was read."""

    number: int
    """In its file, from 1 on."""
    fields: dict[str, Any] = field(default_factory=dict)
    wrong: str = ""
    """Why it could not be read; the fields are those that could."""


def files(given: str) -> list[Path]:
    """A file, or those of a folder, by name. Raises Failure."""
    path = Path(given).expanduser().absolute()
    if not path.exists():
        raise bad_input(f"{given}: no such file or folder")
    found = sorted(one for one in path.iterdir() if one.suffix in KINDS) if path.is_dir() else [path]
    wrong = sorted({one.suffix for one in found} - KINDS.keys())
    if wrong or not found:
        raise bad_input(f"{given}: should be JSON lines, CSV or Parquet ({', '.join(KINDS)})")
    if len(kinds := {KINDS[one.suffix] for one in found}) > 1:
        raise bad_input(f"{given}: should hold files of one kind, holds {' and '.join(sorted(kinds))}")
    return found


def cut(path: Path, rows: int, begins_at: int) -> tuple[Table, list[Partition]]:
    """A file, and its partitions of so many rows, numbered from `begins_at` on. Raises Failure."""
    kind = KINDS[path.suffix]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        columns, starts = _STARTS[kind](path, rows)
    except (ValueError, csv.Error, OSError) as error:
        raise bad_input(f"{path}: {error}") from None
    partitions = [
        Partition(
            number=begins_at + place,
            path=str(path),
            kind=kind,
            first_row=first,
            rows=count,
            begin=begin,
            end=end,
            columns=columns,
        )
        for place, (first, count, begin, end) in enumerate(starts)
    ]
    count = sum(one.rows for one in partitions)
    size_bytes = path.stat().st_size
    return Table(path=str(path), kind=kind, size_bytes=size_bytes, hash=digest, columns=columns, rows=count), partitions


def read(partition: Partition) -> list[Row]:
    """Its rows. Raises OSError."""
    return list(_READ[partition.kind](partition))


def arrow(partition: Partition) -> Any:
    """Rows of a Parquet file as they are typed there: an Arrow table."""
    import pyarrow as pa
    from pyarrow import parquet

    with parquet.ParquetFile(partition.path) as file:
        begin, groups, skipped = 0, [], 0
        for group in range(file.num_row_groups):
            end = begin + file.metadata.row_group(group).num_rows
            if end <= partition.begin:
                skipped = end
            elif begin < partition.end:
                groups.append(file.read_row_group(group))
            begin = end
    return pa.concat_tables(groups).slice(partition.begin - skipped, partition.rows)


Start = tuple[int, int, int, int]
"""Of a partition: number of its first row, how many there are, where it begins and where it ends."""


def _starts_of_lines(path: Path, rows: int) -> tuple[tuple[str, ...], list[Start]]:
    columns: tuple[str, ...] = ()
    starts: list[Start] = []
    with path.open("rb") as file:
        place = 0
        for number, line in enumerate(file, 1):
            if line.strip():
                _add(starts, rows, number, place, place + len(line))
                columns = columns or tuple(_json_row(number, line).fields)
            place += len(line)
    return columns, starts


def _starts_of_records(path: Path, rows: int) -> tuple[tuple[str, ...], list[Start]]:
    starts: list[Start] = []
    with path.open("rb") as file:
        lines = _Lines(file, whole=True)
        records = csv.reader(lines, strict=True)
        columns = tuple(next(records, ()))
        if len(set(columns)) < len(columns):
            raise ValueError("two columns of one name")
        number, place = 0, lines.place
        for record in records:
            if record:
                number += 1
                _add(starts, rows, number, place, lines.place)
            place = lines.place
    return columns, starts


def _add(starts: list[Start], rows: int, number: int, begin: int, end: int) -> None:
    """One row more, to the last partition or, where that is full, to a new one."""
    first, count, start, _ = starts.pop() if starts and starts[-1][1] < rows else (number, 0, begin, begin)
    starts.append((first, count + 1, start, end))


def _starts_of_groups(path: Path, rows: int) -> tuple[tuple[str, ...], list[Start]]:
    from pyarrow import ArrowException, parquet

    try:
        with parquet.ParquetFile(path) as file:
            columns, count = tuple(file.schema_arrow.names), file.metadata.num_rows
    except ArrowException as error:
        raise ValueError(str(error)) from None
    return columns, [(at + 1, min(rows, count - at), at, min(at + rows, count)) for at in range(0, count, rows)]


class _Lines:
    """Lines of a file, or of a part of one, with where the next one begins: how far a reader of records has read."""

    def __init__(self, file: BinaryIO, *, whole: bool) -> None:
        self._file, self._whole, self.place = file, whole, 0

    def __iter__(self) -> Iterator[str]:
        for number, line in enumerate(self._file, 1):
            self.place += len(line)
            try:
                yield line.decode("utf-8-sig" if self._whole and number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise ValueError(f"line {number} is no UTF-8") from None


def _read_lines(partition: Partition) -> Iterator[Row]:
    with Path(partition.path).open("rb") as file:
        file.seek(partition.begin)
        content = file.read(partition.end - partition.begin)
    for number, line in enumerate(content.split(b"\n"), partition.first_row):
        if line.strip():
            yield _json_row(number, line)


def _json_row(number: int, line: bytes) -> Row:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        return Row(number, {}, f"no JSON: {error}")
    return Row(number, fields) if isinstance(fields, dict) else Row(number, {}, "no JSON object")


def _read_records(partition: Partition) -> Iterator[Row]:
    with Path(partition.path).open("rb") as file:
        file.seek(partition.begin)
        lines = _Lines(BytesIO(file.read(partition.end - partition.begin)), whole=False)
    records = (record for record in csv.reader(lines, strict=True) if record)
    for number, record in enumerate(records, partition.first_row):
        fields = dict(zip(partition.columns, record, strict=False))
        right = len(record) == len(partition.columns)
        yield Row(number, fields, "" if right else f"{len(record)} cells for {len(partition.columns)} columns")


def _read_arrow(partition: Partition) -> Iterator[Row]:
    for number, fields in enumerate(arrow(partition).to_pylist(), partition.first_row):
        yield Row(number, fields)


_STARTS = {"jsonl": _starts_of_lines, "csv": _starts_of_records, "parquet": _starts_of_groups}
_READ = {"jsonl": _read_lines, "csv": _read_records, "parquet": _read_arrow}
