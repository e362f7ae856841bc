"""What answers the HTTP requests of a test? A real server on loopback, whose answers a function gives."""

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[str, str, str, str], tuple[int, str]]
"""Of method, path, Authorization and body: status and text."""


@contextmanager
def listening(answer: Answer, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """The URL of a server that answers until the block ends; over TLS where that is given."""

    class Handler(BaseHTTPRequestHandler):
        def reply(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            status, text = answer(self.command, self.path, self.headers.get("Authorization") or "", body)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = do_PUT = do_DELETE = reply

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        if tls is not None:
            http.socket = tls.wrap_socket(http.socket, server_side=True)
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"{'https' if tls else 'http'}://127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()
            thread.join()
