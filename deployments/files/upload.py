"""What does a multipart body hold, as it comes and without being kept in memory?

`multipart/form-data` with a part `file`, which is passed on piece by piece, and a few short fields before or after it.
"""

import asyncio
from collections.abc import AsyncIterator

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from deployments.fleet import RouterSettings
from deployments.openai_wire import ApiError
from deployments.receiving import Receive

FILE = "file"
FIELDS_BYTES = 64 << 10
"""All fields but the file together."""
NAME_LETTERS = 255
"""Of a file's name, more are cut off."""


class Form:
    """One body, fed as it comes."""

    def __init__(self, content_type: bytes, most_bytes: int) -> None:
        """`most_bytes`: that the file may have. Raises ApiError(400) for a body of another kind."""
        kind, options = parse_options_header(content_type)
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise wrong("The body must be multipart/form-data, with a boundary.")
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.size_bytes = 0
        """Of the file."""
        self.whole = False
        self._most_bytes, self._left_bytes = most_bytes, FIELDS_BYTES
        self._pieces: list[bytes] = []
        self._header, self._value, self._name, self._part = b"", b"", "", bytearray()
        hears = {
            "on_part_begin": self._begin_part,
            "on_header_field": self._hear_header,
            "on_header_value": self._hear_value,
            "on_header_end": self._end_header,
            "on_part_data": self._hear_part,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(options[b"boundary"], hears)  # type: ignore[arg-type]
        except FormParserError as error:
            raise wrong(f"The body can't be read: {error}.") from None

    def feed(self, data: bytes) -> bytes:
        """What of the file came with this. Raises ApiError(400, 413)."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise wrong(f"The body can't be read as multipart/form-data: {error}.") from None
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)

    def _begin_part(self) -> None:
        self._name, self._part = "", bytearray()

    def _hear_header(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _hear_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(self._value)
            self._name = options.get(b"name", b"").decode(errors="replace")
            if self._name == FILE:
                self._begin_file(options.get(b"filename", FILE.encode()))
        self._header = self._value = b""

    def _begin_file(self, name: bytes) -> None:
        if self.filename is not None:
            raise wrong("The body has more than one part 'file'.", FILE)
        plain = name.decode(errors="replace").replace("\0", "").rpartition("/")[2]
        self.filename = plain[-NAME_LETTERS:] or FILE

    def _hear_part(self, data: bytes, start: int, end: int) -> None:
        if self._name == FILE:
            self.size_bytes += end - start
            if self.size_bytes > self._most_bytes:
                message = f"The file is larger than {self._most_bytes} bytes."
                raise ApiError(413, message, param=FILE, code="file_too_large")
            self._pieces.append(data[start:end])
            return
        self._left_bytes -= end - start
        if self._left_bytes < 0:
            raise wrong(f"The fields beside the file are longer than {FIELDS_BYTES} bytes.")
        self._part += data[start:end]

    def _end_part(self) -> None:
        if self._name and self._name != FILE:
            self.fields[self._name] = self._part.decode(errors="replace")

    def _end(self) -> None:
        self.whole = True


async def parts(receive: Receive, settings: RouterSettings) -> AsyncIterator[bytes]:
    """A body as it comes. Raises ApiError when it is too slow or the client leaves.

    `body_s` is the longest silence here; all of it has `longest_stream_s`.
    """
    end_s, more = asyncio.get_running_loop().time() + settings.longest_stream_s, True
    while more:
        try:
            async with asyncio.timeout_at(min(end_s, asyncio.get_running_loop().time() + settings.limits.body_s)):
                event = await receive()
        except TimeoutError:
            message = (
                f"The body was silent for {settings.limits.body_s:g} s, or not complete after "
                f"{settings.longest_stream_s:g} s."
            )
            raise ApiError(408, message, code="request_timeout", close=True) from None
        if event["type"] == "http.disconnect":
            raise ApiError(499, "The client closed the connection before the body was complete.")
        more = event.get("more_body", False)
        if part := event.get("body", b""):
            yield part


def wrong(message: str, param: str | None = None) -> ApiError:
    """What can't be understood of it."""
    return ApiError(400, message, param=param, code="invalid_multipart")
