"""What does one HTTP connection take in, and does a request of it end when its client leaves?

uvicorn's own connection answers requests that are sent ahead of an answer in order, but while one waits it hears of
no disconnect, or tells it to the request that waits. It has no limit for the head of a request, in bytes or in time. Of
a request that asks for another protocol it drops the body, and what comes after it.
"""

import asyncio
from http import HTTPStatus
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from deployments.fleet import Limits
from deployments.openai_wire import ApiError

_OF_BODIES = frozenset({b"content-length", b"transfer-encoding"})


class Connection(HttpToolsProtocol):
    """uvicorn's connection with limits for heads. A request sent ahead of an answer is dropped: the connection closes
    after that answer, and the client asks again on another, as HTTP/1.1 has it.
    """

    _head_bytes = 0
    """Come since a head was complete, or some of a body."""
    _head_timer: asyncio.TimerHandle | None = None
    """Runs while a head is expected, on a connection that had none and from the first byte of a later one on."""
    _wrong = ""

    def __init__(self, *told: Any, limits: Limits, **more: Any) -> None:
        super().__init__(*told, **more)
        self._limits = limits

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect_no_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
            self._expect_head()
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > self._limits.head_bytes and not self.transport.is_closing():
            self.send_400_response(self._too_long())

    def on_message_begin(self) -> None:
        if self._answering():
            raise ValueError("a request ahead of an answer")
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._expect_no_head()
        self._head_bytes = 0
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > self._limits.head_bytes:
            self._wrong = self._too_long()
            raise ValueError(self._wrong)
        has_body = any(name in _OF_BODIES for name, _ in self.headers)
        if has_body and self.parser is not None and self.parser.should_upgrade():
            self._wrong = "This server speaks HTTP/1.1 alone: a request with a body may not ask for an upgrade."
            raise ValueError(self._wrong)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        if self._answering():
            self.cycle.keep_alive = False
        else:
            self._refuse(ApiError(400, self._wrong or msg, code="bad_request"))

    def _unsupported_upgrade_warning(self) -> None:
        """The parser reads nothing after a request that wants another protocol."""
        self.cycle.keep_alive = False

    def _too_long(self) -> str:
        return f"The head of the request is longer than {self._limits.head_bytes} bytes."

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(self._limits.head_s, self._give_up)

    def _expect_no_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        """The head did not come in time. Who has sent nothing asks for no answer."""
        if self.transport.is_closing():
            return
        if not self._head_bytes:
            self.transport.close()
            return
        message = f"The head of the request was not complete after {self._limits.head_s:g} s."
        self._refuse(ApiError(408, message, code="request_timeout"))

    def _refuse(self, error: ApiError) -> None:
        """An answer without a request, and the end."""
        body = msgspec.json.encode(error.body)
        head = (
            f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()

    def _answering(self) -> bool:
        """A whole request has come, and its answer has not ended."""
        return self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete
