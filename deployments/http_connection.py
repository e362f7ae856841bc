"""What does one HTTP connection take in, and does a request of it end when its client leaves?

uvicorn's own connection answers requests that are sent ahead of an answer in order, but while one waits it hears of
no disconnect, or tells it to the request that waits. It has no limit for the head of a request. Of a request that asks
for another protocol it drops the body, and what comes after it.
"""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES = 64 << 10
"""Longest request line and headers together, and longest trailer."""
_OF_BODIES = frozenset({b"content-length", b"transfer-encoding"})


class Connection(HttpToolsProtocol):
    """uvicorn's connection with a limit for heads. A request sent ahead of an answer is dropped: the connection closes
    after that answer, and the client asks again on another, as HTTP/1.1 has it.
    """

    _head_bytes = 0
    """Come since a head was complete, or some of a body."""
    _wrong = ""

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response(f"The head of the request is longer than {HEAD_BYTES} bytes.")

    def on_message_begin(self) -> None:
        if self._answering():
            raise ValueError("a request ahead of an answer")
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._head_bytes = 0
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
            super().send_400_response(self._wrong or msg)

    def _unsupported_upgrade_warning(self) -> None:
        """The parser reads nothing after a request that wants another protocol."""
        self.cycle.keep_alive = False

    def _answering(self) -> bool:
        """A whole request has come, and its answer has not ended."""
        return self.cycle is not None and not self.cycle.more_body and not self.cycle.response_complete
