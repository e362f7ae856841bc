"""How do frames get from a router to an engine replica and back, and when is the other side gone?

The engine binds, routers connect: ZeroMQ with CURVE, and only routers whose public key came over the Serve
handle are let in. Everything said in one event-loop turn leaves as one frame. Memory is bounded: what a slow
router has not taken yet is merged, choice by choice, never queued frame by frame. A peer that is silent for
SILENCE_S while this side runs, or whose frames have a gap, is lost.
"""

import asyncio
import os
import threading
from collections.abc import Callable
from copy import copy
from time import monotonic

import msgspec
import zmq
import zmq.auth.asyncio

from deployments.frames import (
    BEAT_S,
    SILENCE_S,
    VERSION,
    Call,
    Cancel,
    Delta,
    EngineFrame,
    Failure,
    Load,
    Part,
    RouterFrame,
    Spent,
    Submit,
    Took,
    Waiting,
)
from deployments.router_peer import RouterPeer
from deployments.sharing import Sharing
from deployments.wire import Wire, curve_socket

LINGER_S = 1.0
"""A goodbye may be on its way for so long."""


class EngineEnd:
    """The engine's end: any number of routers.

    `on_message(router, message)` gets each message of a router; `on_lost(router)` is told when a router is gone;
    `load()` says how busy the replica is; each router is told its share of the credits.
    """

    def __init__(
        self,
        *,
        host: str,
        on_message: Callable[[bytes, Submit | Call | Cancel | Took], None],
        on_lost: Callable[[bytes], None],
        load: Callable[[], Load],
    ) -> None:
        self._on_message, self._on_lost, self._load = on_message, on_lost, load
        self._routers: dict[bytes, RouterPeer] = {}
        self._sharing = Sharing()
        self._allowed: set[bytes] = set()
        self._decode = msgspec.msgpack.Decoder(RouterFrame).decode
        self._encode = msgspec.msgpack.Encoder().encode
        self._context = zmq.Context()
        self._gate = zmq.auth.asyncio.AsyncioAuthenticator(self._context)
        self._gate.start()
        self._gate.configure_curve_callback("*", self)
        self.public_key, secret_key = zmq.curve_keypair()
        socket = curve_socket(self._context, zmq.ROUTER, secret_key, self.public_key)
        socket.curve_server = True
        socket.router_mandatory = True
        socket.bind(f"tcp://{host}:*")
        self.address: str = socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self._wire = Wire(socket, self._hear)
        self._loop = asyncio.get_running_loop()
        self._flush_due = False
        self._due_s = monotonic() + BEAT_S / 2
        self._beat = self._loop.call_later(BEAT_S / 2, self._tick)

    def callback(self, _domain: str, key: bytes) -> bool:
        """ZeroMQ asks: may a client with this public key come in?"""
        return key in self._allowed

    def allow(self, router_key: bytes) -> None:
        """Lets the router with this public key connect."""
        self._allowed.add(router_key)

    def say(self, router: bytes, answer: Delta | Part | Failure | Spent) -> None:
        """Puts an answer into the frame that leaves at the end of this turn."""
        if (peer := self._routers.get(router)) is not None:
            peer.put(answer)
            self.flush_soon()

    async def room(self, router: bytes) -> None:
        """Returns after what was said to this router has left, or it is gone."""
        await asyncio.sleep(0)
        while (peer := self._routers.get(router)) is not None and peer.full:
            await asyncio.sleep(BEAT_S / 8)

    def announce(self) -> None:
        """Tells every router the load now, without waiting for an answer to send."""
        for router, peer in list(self._routers.items()):
            self._send(router, peer, self._load())

    def flush_soon(self) -> None:
        """Sends at the end of this event-loop turn."""
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def close(self, *, died: bool = False) -> None:
        """Says goodbye to every router and closes; takes LINGER_S at most.

        `died`: the engine did. What waits to be said may be an error made of that; routers rather ask another replica.
        """
        for router, peer in list(self._routers.items()):
            if died:
                peer.forget()
            self._send(router, peer, self._load(), goodbye=True)
        self._beat.cancel()
        self._wire.close(linger_s=LINGER_S)
        self._gate.stop()
        # libzmq can hang here for ever when a router closes while its goodbye is on the way.
        ending = threading.Thread(target=self._context.term, daemon=True)
        ending.start()
        ending.join(LINGER_S)

    def _flush(self) -> None:
        self._flush_due = False
        load = self._load()
        has_room = load.credit_requests > 0 and load.credit_tokens > 0 and not load.draining
        for router, peer in list(self._routers.items()):
            if not peer.full and (peer.has_answers() or (has_room and self._sharing.asks(router))):
                self._send(router, peer, copy(load))

    def _send(self, router: bytes, peer: RouterPeer, load: Load, goodbye: bool = False) -> None:
        load.received = peer.received_submits
        self._sharing.address(load, router, peer.sent_frames)
        deltas, parts = list(peer.deltas.values()), list(peer.parts.values())
        frame = EngineFrame(VERSION, peer.sent_frames, load, deltas, peer.failures, goodbye, parts, peer.spent)
        try:
            peer.full = not self._wire.send(router, self._encode(frame))
        except zmq.ZMQError:
            self._lose(router)
            return
        if peer.full:
            return
        self._sharing.sent(router, deltas, parts, peer.failures)
        peer.sent_frames += 1
        peer.spoke_s = monotonic()
        peer.forget()

    def _hear(self, parts: list[bytes]) -> None:
        router, body = parts
        peer = self._routers.setdefault(router, RouterPeer(heard_s=0.0))
        peer.heard_s = monotonic()
        try:
            frame = self._decode(body)
        except msgspec.DecodeError:
            self._lose(router)
            return
        if frame.version != VERSION or frame.sequence != peer.received_frames:
            self._lose(router)
            return
        peer.received_frames += 1
        self._sharing.hear(router, frame, peer.heard_s)
        if not peer.sent_frames:
            # A router sends nothing to a replica of which it knows nothing.
            self._send(router, peer, self._load())
        elif self._sharing.asks(router):
            self.flush_soon()
        for message in frame.messages:
            if isinstance(message, Submit | Call):
                peer.received_submits += 1
            self._on_message(router, message)

    def _lose(self, router: bytes) -> None:
        if self._routers.pop(router, None) is not None:
            self._sharing.leave(router)
            self._on_lost(router)

    def _tick(self) -> None:
        self._wire.read()
        now_s, late_s = monotonic(), _late_s(self._due_s)
        for router, peer in list(self._routers.items()):
            peer.heard_s = min(now_s, peer.heard_s + late_s)
            if now_s - peer.heard_s > SILENCE_S:
                self._lose(router)
            elif peer.full or now_s - peer.spoke_s > BEAT_S / 2:
                self._send(router, peer, self._load())
        self._due_s = monotonic() + BEAT_S / 2
        self._beat = self._loop.call_later(BEAT_S / 2, self._tick)


class RouterEnd:
    """The router's end of the link to one engine replica.

    `on_frame(frame)` gets each frame of the engine; `on_lost(reason)` is told once, when the engine is gone.
    """

    def __init__(
        self,
        *,
        address: str,
        engine_key: bytes,
        keys: tuple[bytes, bytes],
        on_frame: Callable[[EngineFrame], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._on_frame, self._on_lost = on_frame, on_lost
        self._decode = msgspec.msgpack.Decoder(EngineFrame).decode
        self._encode = msgspec.msgpack.Encoder().encode
        self._messages: list[Submit | Call | Cancel | Took] = []
        self._waiting: Waiting | None = None
        self._sent_frames = self._received_frames = 0
        self._heard_s = self._spoke_s = monotonic()
        self.alive = True
        socket = curve_socket(zmq.Context.instance(), zmq.DEALER, keys[1], keys[0])
        socket.curve_serverkey = engine_key
        # A fresh identity for each link: a link that comes back is a new one to the engine.
        socket.setsockopt(zmq.ROUTING_ID, os.urandom(8).hex().encode())
        self._wire = Wire(socket, self._hear, lambda: self._lose("closed the connection"))
        socket.connect(address)
        self._loop = asyncio.get_running_loop()
        self._flush_due = False
        self._send()
        self._due_s = monotonic() + BEAT_S / 2
        self._beat = self._loop.call_later(BEAT_S / 2, self._tick)

    def say(self, message: Submit | Call | Cancel | Took) -> None:
        """Puts a message into the frame that leaves at the end of this turn."""
        self._messages.append(message)
        self._send_soon()

    def announce(self, waiting: Waiting | None, *, now: bool) -> None:
        """Tells what waits in this router: with the next frame, or `now` in one of its own."""
        self._waiting = waiting
        if now:
            self._send_soon()

    def close(self) -> None:
        """Ends the link without telling `on_lost`."""
        if self.alive:
            self.alive = False
            self._beat.cancel()
            self._wire.close()

    def _send_soon(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._send)

    def _send(self) -> None:
        self._flush_due = False
        if not self.alive:
            return
        heard = self._received_frames - 1
        frame = RouterFrame(VERSION, self._sent_frames, self._messages, heard, self._waiting)
        if self._wire.send(self._encode(frame)):
            self._sent_frames += 1
            self._spoke_s = monotonic()
            self._messages = []

    def _hear(self, parts: list[bytes]) -> None:
        if not self.alive:
            return
        self._heard_s = monotonic()
        try:
            frame = self._decode(parts[0])
        except msgspec.DecodeError as error:
            self._lose(f"sent a frame that is not one ({error})")
            return
        if frame.version != VERSION or frame.sequence != self._received_frames:
            self._lose(f"frame {frame.sequence} of version {frame.version} instead of {self._received_frames}")
            return
        self._received_frames += 1
        self._on_frame(frame)
        if frame.goodbye:
            self._lose("said goodbye")

    def _lose(self, reason: str) -> None:
        if self.alive:
            self.close()
            self._on_lost(reason)

    def _tick(self) -> None:
        self._wire.read()
        now_s = monotonic()
        self._heard_s = min(now_s, self._heard_s + _late_s(self._due_s))
        if now_s - self._heard_s > SILENCE_S:
            self._lose(f"silent for {now_s - self._heard_s:.1f} s")
            return
        if self._messages or now_s - self._spoke_s > BEAT_S / 2:
            self._send()
        if self.alive:
            self._due_s = monotonic() + BEAT_S / 2
            self._beat = self._loop.call_later(BEAT_S / 2, self._tick)


def _late_s(due_s: float) -> float:
    """By how much this process itself stood still: for so long it could hear nobody, and that is no peer's silence."""
    return max(0.0, monotonic() - due_s)
