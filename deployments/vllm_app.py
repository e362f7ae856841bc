"""What does vLLM's own HTTP application answer to a call, run inside the engine's process?

Its answers and errors are vLLM's own. Written against vLLM 0.29.0.
"""

import asyncio
import logging
from argparse import Namespace
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from types import SimpleNamespace
from typing import Any

import routing
from deployments.call_tally import TALLY, CountedEngine, Tally
from deployments.frames import WINDOW_BYTES, Call, Failure, Part, Spent
from deployments.link import EngineEnd

CHUNK_BYTES = 1 << 18
"""Largest part of an answer: a frame with more would hold up the deltas of others."""
GRACE_S = 1.0
"""A handler whose client is gone may tidy up for so long."""
PASSED_ON = frozenset({b"content-type", b"content-length", b"retry-after", b"metadata"})
"""Headers of an answer that a client gets; the last says where in raw bytes each vector lies."""

Asgi = Callable[[dict[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]

log = logging.getLogger("ray.serve")


class Application:
    """Answers routers' calls with an ASGI application. `abort` ends requests that the engine may still have."""

    def __init__(self, app: Asgi, abort: Callable[[list[str]], Awaitable[None]]) -> None:
        self._app, self._abort = app, abort
        self._tallies: set[Tally] = set()
        self._open: dict[tuple[bytes, int], _Answer] = {}

    @property
    def open_calls(self) -> int:
        return len(self._open)

    def waiting(self) -> tuple[int, int]:
        """Calls of which the engine knows nothing yet, and the prompt tokens that they may bring."""
        early = [tally.estimate_tokens for tally in self._tallies if not tally.begun]
        return len(early), sum(early)

    def leave(self, router: bytes, request: int) -> None:
        """Nobody waits for the answer to this call any more."""
        if (answer := self._open.get((router, request))) is not None:
            answer.leave()

    def took(self, router: bytes, request: int, size_bytes: int) -> None:
        """So much more of the answer to this call was read."""
        if (answer := self._open.get((router, request))) is not None:
            answer.took(size_bytes)

    def drop(self, router: bytes) -> None:
        """A router is lost, and its calls with it."""
        for run, answer in self._open.items():
            if run[0] == router:
                answer.leave()

    async def answer(self, router: bytes, call: Call, link: EngineEnd) -> None:
        """Answers a call in parts, the last of which has `more` unset, or by a Failure."""
        run = (router, call.request)
        order = routing.reading_order(routing.Tier(call.tier), monotonic())
        tally, gone = Tally(call.read_tokens, order), asyncio.Event()
        self._tallies.add(tally)
        answer = _Answer(call, tally, partial(link.say, router), partial(link.room, router), gone)
        self._open[run] = answer
        token = TALLY.set(tally)
        serving = asyncio.ensure_future(self._app(_scope(call), _receiver(call.body, gone), answer.send))
        TALLY.reset(token)
        try:
            await self._serve(serving, tally, gone)
        except Exception:  # it was answered with vLLM's 500, where that was still possible
            log.exception("%s", call.path)
        finally:
            self._tallies.discard(tally)
            del self._open[run]
            answer.end()

    async def _serve(self, serving: asyncio.Future[None], tally: Tally, gone: asyncio.Event) -> None:
        leaving = asyncio.ensure_future(gone.wait())
        try:
            await asyncio.wait({serving, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                await self._abort_open(tally)
                await asyncio.wait({serving}, timeout=GRACE_S)
        finally:
            leaving.cancel()
            if serving.cancel():
                await asyncio.wait({serving}, timeout=GRACE_S)
            # A request that was being handed over when its handler was cancelled is known to nobody else.
            await self._abort_open(tally)
        if serving.done() and not serving.cancelled():
            serving.result()

    async def _abort_open(self, tally: Tally) -> None:
        tally.left = True
        if tally.open:
            await self._abort(list(tally.open))


@dataclass(eq=False, slots=True)
class _Answer:
    """An answer on its way out, in ASGI's words on one side and parts on the other."""

    call: Call
    tally: Tally
    emit: Callable[[Part | Failure | Spent], None]
    room: Callable[[], Awaitable[None]]
    gone: asyncio.Event
    read: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the reader took some, or left."""
    unread_bytes: int = 0
    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    started: bool = False
    ended: bool = False

    async def send(self, message: dict[str, Any]) -> None:
        """ASGI's send."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = [
                (name.decode("latin-1"), value.decode("latin-1"))
                for name, value in message.get("headers", ())
                if name.lower() in PASSED_ON
            ]
        elif self.gone.is_set():
            await asyncio.sleep(0)  # or one that goes on talking would never hear of it
        elif message["type"] == "http.response.body":
            await self._body(message.get("body", b""), message.get("more_body", False))

    def took(self, size_bytes: int) -> None:
        """So much more was read."""
        self.unread_bytes -= size_bytes
        self.read.set()

    def leave(self) -> None:
        """Nobody reads any more."""
        self.gone.set()
        self.read.set()

    def end(self) -> None:
        """Says that nothing more comes, unless that was said."""
        self._tell_spent()
        if self.ended:
            return
        if self.started or self.gone.is_set():
            self._part(b"", more=False)
        else:
            self.emit(Failure(self.call.request, self.call.attempt, 500, "The engine's application gave no answer."))

    async def _body(self, body: bytes, more: bool) -> None:
        ends = range(CHUNK_BYTES, len(body), CHUNK_BYTES)
        for end in ends:
            await self._say(body[end - CHUNK_BYTES : end])
            if self.gone.is_set():
                return
        if more:
            await self._say(body[len(ends) * CHUNK_BYTES :])
        else:
            self._part(body[len(ends) * CHUNK_BYTES :], more=False)

    async def _say(self, body: bytes) -> None:
        """Says a part that is not the last, when there is room, and waits until there is room for the next."""
        self._part(body, more=True)
        self.unread_bytes += len(body)
        await self.room()
        while self.unread_bytes > WINDOW_BYTES and not self.gone.is_set():
            self.read.clear()
            await self.read.wait()

    def _part(self, body: bytes, more: bool) -> None:
        status, headers = (0, []) if self.started else (self.status, self.headers)
        self.started, self.ended = True, not more
        if not more:
            self._tell_spent()
        tokens = self.tally.take()
        self.emit(Part(self.call.request, self.call.attempt, bytearray(body), more, status, headers, *tokens))

    def _tell_spent(self) -> None:
        if self.tally.gpu_s:
            self.emit(Spent(self.call.request, self.tally.gpu_s))
            self.tally.gpu_s = 0.0


def _scope(call: Call) -> dict[str, Any]:
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": call.method,
        "scheme": "http",
        "path": call.path,
        "raw_path": call.path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in call.headers],
        "client": None,
        "server": None,
    }


def _receiver(body: bytes, gone: asyncio.Event) -> Callable[[], Awaitable[dict[str, Any]]]:
    told = False

    async def receive() -> dict[str, Any]:
        nonlocal told
        if not told:
            told = True
            return {"type": "http.request", "body": body, "more_body": False}
        await gone.wait()
        return {"type": "http.disconnect"}

    return receive


async def build(
    llm: Any,
    arguments: dict[str, Any],
    work_arrived: Callable[[], None],
    cut_off: Callable[[], None],
    spent: Callable[[str], float],
) -> Application:
    """vLLM's application over a running AsyncLLM, as its own server would set it up.

    `arguments` are the engine's, as it has completed them (a reasoning parser in its config of structured outputs), and
    those of SERVER_SETTINGS that the fleet gives; `work_arrived` is told of each request before the engine is,
    `cut_off` of one that the core ended by itself with no answer; `spent` says what one had of the devices.
    """
    from vllm.entrypoints.launchers.api_server.app_state import init_app_state
    from vllm.entrypoints.launchers.app import build_app
    from vllm.entrypoints.launchers.cli_args import FrontendArgs

    # Routers let templates pass only where the fleet allows them.
    ours = {"disable_fastapi_docs": True, "trust_request_chat_template": True}
    args = Namespace(**(vars(FrontendArgs()) | arguments | ours))
    tasks = await llm.get_supported_tasks()
    app = build_app(args, tasks, llm.model_config)
    engine: Any = CountedEngine(llm, work_arrived, cut_off, spent)
    await init_app_state(engine, app.state, args, tasks)
    # vLLM's handler of a dead engine wants a server to stop; Serve replaces this replica anyway.
    app.state.server = SimpleNamespace(should_exit=False)
    if (responses := getattr(app.state, "openai_serving_responses", None)) is not None:
        responses.enable_store = False  # whatever the environment says: what is stored is never removed
    return Application(app, llm.abort)
