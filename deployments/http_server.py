"""How does a router's HTTP server start, and how does it end without losing anybody?"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import uvicorn

from deployments.fleet import Limits
from deployments.http_connection import Connection
from deployments.listener import Listener

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]

KEEP_ALIVE_S = 75
"""An idle connection is kept for so long: longer than load balancers keep theirs, so that those are first to close."""
FIRST_REQUEST_S = 5.0
"""What a connection that was accepted before the end gets to send its first request."""
PAUSE_S = 1.0
"""Between two tries when the system refuses to give a connection."""
LOOK_S = 0.02
_CLOSE = (b"connection", b"close")

log = logging.getLogger("ray.serve")


class HttpServer:
    """uvicorn on a shared socket, whose connections it is handed one by one. Belongs to one event loop."""

    def __init__(self, app: App, listener: Listener, limits: Limits) -> None:
        self._app, self._listener = app, listener
        self._loop = asyncio.get_running_loop()
        self._accepting = self._draining = False
        self._arriving: set[asyncio.Future[Any]] = set()
        connection: Any = partial(Connection, limits=limits)
        self._config = uvicorn.Config(
            self._answer,
            http=connection,
            ws="none",
            lifespan="off",
            interface="asgi3",
            access_log=False,
            proxy_headers=False,
            date_header=False,
            log_config=None,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
        )
        self._server = uvicorn.Server(self._config)
        self._serving = asyncio.ensure_future(self._server.serve(sockets=[]))

    async def start(self) -> None:
        """Accepts connections from now on. Raises what uvicorn did not start for."""
        while not self._server.started and not self.ended:
            await asyncio.wait([self._serving], timeout=LOOK_S)
        if self.ended:
            self._serving.result()
        self._accept_on()

    @property
    def ended(self) -> bool:
        """It serves no more, because it was drained or because it failed."""
        return self._serving.done()

    @property
    def left(self) -> bool:
        """It accepts nothing more: new connections are the business of others."""
        return not self._listener.held

    def open_answers(self) -> list[Any]:
        """Connections with a request whose answer is not complete."""
        return [one for one in self._connections() if one.cycle is not None and not one.cycle.response_complete]

    def expects_requests(self) -> bool:
        """Whether there are connections that have not sent a request yet."""
        return bool(self._arriving) or any(one.cycle is None for one in self._connections())

    async def drain(self, settle_s: float) -> None:
        """Ends the server; returns when the last answer has been given, however long that takes.

        For `settle_s` it goes on accepting, with answers that close their connections. Then the socket is left to its
        other holders, what was accepted by then is answered, and idle connections are closed.
        """
        self._draining = True
        for connection in self.open_answers():
            connection.shutdown()  # once it is complete
        await asyncio.sleep(settle_s)
        self._accept_off()
        self._listener.leave()
        await self._first_requests()
        self._server.should_exit = True
        await self._serving

    def _accept_on(self) -> None:
        if self._listener.held:
            self._accepting = True
            self._loop.add_reader(self._listener.socket, self._accept)

    def _accept_off(self) -> None:
        if self._accepting:
            self._accepting = False
            self._loop.remove_reader(self._listener.socket)

    def _accept(self) -> None:
        """Takes one connection in. An event loop's own server takes all that wait and leaves other routers none."""
        try:
            connection, _ = self._listener.socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:  # such as too many open files
            log.error("can't accept connections for %s s: %s", PAUSE_S, error)
            self._accept_off()
            self._loop.call_later(PAUSE_S, self._accept_on)
            return
        connection.setblocking(False)
        arriving = asyncio.ensure_future(self._loop.connect_accepted_socket(self._protocol, connection))
        self._arriving.add(arriving)
        arriving.add_done_callback(self._arriving.discard)

    def _protocol(self) -> asyncio.Protocol:
        """As uvicorn makes it for its own sockets."""
        make: Any = self._config.http_protocol_class
        return make(config=self._config, server_state=self._server.server_state, app_state={})

    def _connections(self) -> list[Any]:
        """uvicorn's protocol objects. It says nothing of what they are waiting for; their `cycle` is the request."""
        return list(self._server.server_state.connections)

    async def _answer(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        await self._app(scope, receive, _closing(send) if self._draining else send)

    async def _first_requests(self) -> None:
        """Waits for connections that were accepted but have not sent a request: uvicorn would just close them."""
        waited_s = 0.0
        while waited_s < FIRST_REQUEST_S and self.expects_requests():
            await asyncio.sleep(LOOK_S)
            waited_s += LOOK_S


def _closing(send: Send) -> Send:
    """Sends answers that ask the client to use another connection for its next request."""

    async def closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = message | {"headers": [*message["headers"], _CLOSE]}
        await send(message)

    return closing
