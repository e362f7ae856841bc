"""How does a ZeroMQ socket live on an asyncio loop, encrypted, and without ever blocking it?"""

import asyncio
from collections.abc import Callable

import zmq

FRAMES_IN_FLIGHT = 64
"""Frames that ZeroMQ keeps for a peer that does not read."""


class Wire:
    """A ZeroMQ socket on an asyncio loop: reads until empty, never blocks.

    `on_parts` gets the parts of each message; `on_cut` is told when a connection that was there is not any more, after
    what came over it. zmq.asyncio is not used: it costs several times as much per message.
    """

    def __init__(
        self, socket: zmq.Socket, on_parts: Callable[[list[bytes]], None], on_cut: Callable[[], None] | None = None
    ) -> None:
        self._socket, self._on_parts, self._on_cut = socket, on_parts, on_cut
        self._loop = asyncio.get_running_loop()
        self._descriptor = int(socket.getsockopt(zmq.FD))
        self._loop.add_reader(self._descriptor, self.read)
        self._monitor = None if on_cut is None else socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        if self._monitor is not None:
            self._loop.add_reader(int(self._monitor.getsockopt(zmq.FD)), self._watch)
            # A descriptor announces nothing before its socket was looked at once.
            self._monitor.poll(0)

    def read(self) -> None:
        """Hands over everything that has arrived."""
        while not self._socket.closed:
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._on_parts(parts)

    def send(self, *parts: bytes) -> bool:
        """Sends unless the peer's queue is full. Raises zmq.ZMQError when the peer is unknown."""
        try:
            self._socket.send_multipart(parts, zmq.NOBLOCK)
        except zmq.Again:
            return False
        finally:
            # The descriptor is edge-triggered: what arrived meanwhile would not be announced again.
            self._loop.call_soon(self.read)
        return True

    def close(self, linger_s: float = 0.0) -> None:
        self._loop.remove_reader(self._descriptor)
        if (monitor := self._monitor) is not None:
            self._monitor = None
            self._loop.remove_reader(int(monitor.getsockopt(zmq.FD)))
            self._socket.disable_monitor()
            monitor.close(linger=0)
        self._socket.close(linger=int(linger_s * 1000))

    def _watch(self) -> None:
        """The monitor tells of nothing but ends of connections."""
        if self._monitor is None or not self._monitor.poll(0):
            return
        self.read()
        # What was read may have closed the wire.
        if self._monitor is not None and self._on_cut is not None:
            self._on_cut()


def curve_socket(context: zmq.Context, kind: int, secret_key: bytes, public_key: bytes) -> zmq.Socket:
    """A socket of this kind with a key pair of its own, bounded in the frames that it queues."""
    socket = context.socket(kind)
    socket.set_hwm(FRAMES_IN_FLIGHT)
    socket.curve_secretkey, socket.curve_publickey = secret_key, public_key
    return socket
