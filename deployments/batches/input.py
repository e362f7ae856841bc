"""Which requests does the input file of a batch hold, and what is wrong with its other lines?"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any, Literal

import msgspec

import routing

MOST_ERRORS = 100
"""Told in a batch's `errors`; its error file has all of them."""
MARK = b"\xef\xbb\xbf"
"""Begins a text in UTF-8 that Windows wrote."""
STEP_BYTES = 1 << 18
"""Read at once, after which others may have the thread's time."""


class WrongLine(Exception):
    """A line that can't be asked."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code, self.message, self.param = code, message, param


class _Body(msgspec.Struct):
    """What of a request's body matters here."""

    model: Any = None
    stream: Any = None
    tools: msgspec.Raw = msgspec.Raw(b"")
    instructions: msgspec.Raw = msgspec.Raw(b"")
    messages: msgspec.Raw = msgspec.Raw(b"")
    prompt: msgspec.Raw = msgspec.Raw(b"")
    input: msgspec.Raw = msgspec.Raw(b"")

    def text(self) -> bytes:
        """Its prompt, as far as an order needs it."""
        return b"".join(map(bytes, (self.tools, self.instructions, self.messages, self.prompt, self.input)))


class _Line(msgspec.Struct):
    custom_id: str
    method: Literal["POST"]
    url: str
    body: msgspec.Raw


@dataclass(slots=True)
class Line:
    """One that can be asked."""

    number: int
    """From 1 on."""
    offset: int
    size: int
    """Where in the file, in bytes."""
    model: str | None


@dataclass(slots=True)
class Wrong:
    """One that can't."""

    number: int
    custom_id: str | None
    """None where it has none, or that of an earlier line."""
    why: WrongLine

    def told(self) -> dict[str, Any]:
        """As a batch's `errors` have it."""
        return {"code": self.why.code, "line": self.number, "message": self.why.message, "param": self.why.param}


class _WithId(msgspec.Struct):
    custom_id: Any = None


def read_line(text: bytes, endpoint: str) -> tuple[str, bytes, _Body]:
    """Its custom id, the body of its request, and what of that matters here. Raises WrongLine."""
    try:
        line = msgspec.json.decode(text.removeprefix(MARK), type=_Line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WrongLine("invalid_json_line", f"This line holds no request: {error}.") from None
    if not line.custom_id:
        raise WrongLine("missing_custom_id", "'custom_id' must not be empty.", "custom_id")
    if line.url != endpoint:
        raise WrongLine("mismatched_url", f"'url' must be the batch's endpoint: {endpoint}.", "url")
    try:
        body = msgspec.json.decode(line.body, type=_Body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WrongLine("invalid_body", f"'body' must be a JSON object: {error}.", "body") from None
    if body.stream:
        raise WrongLine("invalid_body", "'stream' has no place in a batch.", "body.stream")
    return line.custom_id, bytes(line.body), body


def custom_id_of(text: bytes) -> str | None:
    """Of a line that may be wrong."""
    try:
        found = msgspec.json.decode(text.removeprefix(MARK), type=_WithId).custom_id
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if isinstance(found, str) and found else None


@dataclass
class Input:
    """What was read of an input file."""

    endpoint: str
    tenant: str
    most_lines: int
    most_bytes: int
    """Of a line."""
    lines: list[Line] = field(default_factory=list)
    """In the order of the file until `put_in_order`."""
    wrong: list[Wrong] = field(default_factory=list)
    too_many: bool = False
    _prompts: list[tuple[tuple[int, ...], int]] = field(default_factory=list)
    _ids: set[str] = field(default_factory=set)

    @property
    def total(self) -> int:
        return len(self.lines) + len(self.wrong)

    @property
    def model(self) -> str | None:
        """That all of them name."""
        models = {line.model for line in self.lines}
        return models.pop() if len(models) == 1 else None

    def read(self, file: IO[bytes]) -> Iterator[None]:
        """Reads a file from its begin, a step at a time."""
        offset = number = read_bytes = 0
        while (text := file.readline(self.most_bytes + 1)) and not self.too_many:
            number += 1
            self._take(number, offset, text)
            offset += len(text)
            while not text.endswith(b"\n") and (text := file.readline(self.most_bytes + 1)):
                offset += len(text)  # the rest of a line that is too long
            if offset - read_bytes >= STEP_BYTES:
                read_bytes = offset
                yield

    def put_in_order(self) -> None:
        """From now on its lines stand in the order in which to ask."""
        self.lines = [self.lines[place] for place in routing.line_order(self._prompts)]
        self._prompts, self._ids = [], set()

    def _take(self, number: int, offset: int, text: bytes) -> None:
        if not text.strip():
            return
        try:
            if len(text) > self.most_bytes:
                raise WrongLine("line_too_long", f"This line is longer than {self.most_bytes} bytes.")
            custom_id, _, body = read_line(text, self.endpoint)
            if custom_id in self._ids:
                raise WrongLine("duplicate_custom_id", "An earlier line has this 'custom_id'.", "custom_id")
        except WrongLine as why:
            self._refuse(number, text, why)
        else:
            self._ids.add(custom_id)
            model = body.model if isinstance(body.model, str) and "\0" not in body.model else None
            self.lines.append(Line(number, offset, len(text), model))
            key, blocks = routing.body_keys(body.text(), f"{self.tenant}\0{model}")
            self._prompts.append(((*blocks, key), len(text)))
        self.too_many = self.total > self.most_lines

    def _refuse(self, number: int, text: bytes, why: WrongLine) -> None:
        custom_id = custom_id_of(text)
        if custom_id in self._ids:
            custom_id = None
        elif custom_id is not None:
            self._ids.add(custom_id)
        self.wrong.append(Wrong(number, custom_id, why))
