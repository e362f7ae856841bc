"""How does a ZeroMQ socket live on an asyncio loop, encrypted, and without ever blocking it?"""

import asyncio
from collections.abc import Callable

import zmq

FRAMES_IN_FLIGHT = 64
"""Frames that ZeroMQ keeps for a peer that does not read."""


class Wire:
    """A ZeroMQ socket on an asyncio loop: reads until empty, never blocks.

    `on_parts` gets the parts of each message. zmq.asyncio is not used: it costs several times as much per
    message.
    """

    def __init__(self, socket: zmq.Socket, on_parts: Callable[[list[bytes]], None]) -> None:
        self._socket, self._on_parts = socket, on_parts
        self._loop = asyncio.get_running_loop()
        self._descriptor = int(socket.getsockopt(zmq.FD))
        self._loop.add_reader(self._descriptor, self.read)

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
        self._socket.close(linger=int(linger_s * 1000))


def curve_socket(context: zmq.Context, kind: int, secret_key: bytes, public_key: bytes) -> zmq.Socket:
    """A socket of this kind with a key pair of its own, bounded in the frames that it queues."""
    socket = context.socket(kind)
    socket.set_hwm(FRAMES_IN_FLIGHT)
    socket.curve_secretkey, socket.curve_publickey = secret_key, public_key
    return socket
