"""How does a router run one batch: read it, ask its lines, and write what came of them?"""

import asyncio
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic, time
from typing import IO, Any

import msgspec

import routing
from deployments.batches import line_texts, output
from deployments.batches.batch import Batch, Outcome
from deployments.batches.input import MOST_ERRORS, Input, Line, read_line
from deployments.batches.keeper import BatchKeeper
from deployments.batches.places import Places
from deployments.batches.state import Status, ending
from deployments.batches.verdict import again, failed_with_engine, tokens
from deployments.files.shelf import Shelf, read_at
from deployments.fleet import Limits
from deployments.in_process import Answer, Route, ask
from deployments.key_ring import Holder, KeyRing
from deployments.late_store import LateStore
from deployments.tenants import PREFER

TURN_S = 0.05
"""Between two looks for room, where nothing happens meanwhile."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Surroundings:
    """What runs need of their router."""

    store: LateStore
    shelf: Shelf
    routes: Mapping[str, Route]
    """By endpoint."""
    ring: KeyRing
    places: Places
    limits: Limits
    lease_s: float
    """A batch whose router says nothing for so long is another's."""
    kept_s: float
    """Of what has ended nothing is known after so long."""
    log: Callable[[str], None]


class BatchRun:
    """One batch that this router has claimed. Belongs to one event loop."""

    def __init__(self, batch: Batch, owner: str, around: Surroundings) -> None:
        """`owner`: as which it was claimed."""
        self._batch, self._around = batch, around
        self._keeper = BatchKeeper(batch, around.store, owner, around.lease_s, around.log)
        self._left: dict[str, deque[Line]] = {}
        self._flying: set[asyncio.Task[None]] = set()
        self._failures: Counter[int] = Counter()
        self._paused_until_s = 0.0
        self._news = asyncio.Event()
        self._error: BaseException | None = None
        """Of a line that can't be asked here."""
        self.stopped = False
        """It sends nothing more; what is in flight goes on."""

    async def run(self) -> None:
        """To its end. Whoever cancels it leaves the rest to another router. Raises LeaseLost, StoreError and others."""
        keeping = asyncio.ensure_future(self._keeper.go_on())
        working = asyncio.ensure_future(self._work())
        try:
            await asyncio.wait((keeping, working), return_when=asyncio.FIRST_COMPLETED)
            (keeping if keeping.done() else working).result()
        finally:
            await _end(keeping, working)
            await self._land()
            await self._keeper.keep_last()

    async def _work(self) -> None:
        with ExitStack() as stack:
            try:
                at_hand = self._around.shelf.at_hand(self._batch.input_file)
                file = await asyncio.to_thread(stack.enter_context, at_hand)
            except FileNotFoundError:
                return await self._fail("input_file_lost", "The input file's content is not there any more.")
            told = await self._read(file)
            if why := _wrong_in_all(told):
                return await self._fail(*why, told)
            await self._begin(told)
            end = await self._ask_all(file)
            await self._finish(end, self._unasked(told, file, end))

    async def _read(self, file: IO[bytes]) -> Input:
        """Also puts the lines in order."""
        limits = self._around.limits
        told = Input(self._batch.endpoint, self._batch.tenant, limits.batch_lines, limits.body_bytes)
        reading = told.read(file)
        while await asyncio.to_thread(lambda: next(reading, self)) is not self:
            pass
        await asyncio.to_thread(told.put_in_order)
        return told

    async def _begin(self, told: Input) -> None:
        """What is known of its lines is told, and what came of them earlier."""
        keeper, batch = self._keeper, self._batch
        keeper.progress = replace(keeper.progress, total=told.total)
        if keeper.status is Status.VALIDATING:
            errors = [line.told() for line in told.wrong[:MOST_ERRORS]]
            values = {"in_progress_s": time(), "model": told.model, "errors": errors, "total": told.total}
            await keeper.move(Status.IN_PROGRESS, values)
        await keeper.recall()
        for line in told.wrong:
            if line.number not in keeper.done:
                keeper.add(Outcome(line.number, False, line_texts.wrong(batch.id, line)), (0, 0, 0))
        for line in told.lines:
            if line.number not in keeper.done:
                self._left.setdefault(self._around.places.model(line.model), deque()).append(line)

    async def _ask_all(self, file: IO[bytes]) -> Status:
        """Returns how it ended."""
        for model in self._left:
            self._around.places.join(model, self._batch.id)
        while (end := self._ending()) is None:
            if self._error is not None:
                raise self._error
            self._news.clear()
            self._send(file)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), TURN_S)
        await self._land()
        return end

    def _ending(self) -> Status | None:
        keeper, batch = self._keeper, self._batch
        keeper.cancel = self._around.ring.revoked(batch.key)
        return ending(keeper.status, left=keeper.progress.left, now_s=time(), expires_s=batch.expires_s)

    def _send(self, file: IO[bytes]) -> None:
        """As many lines as there is room for."""
        if self.stopped or self._keeper.away or monotonic() < self._paused_until_s:
            return
        for model, lines in self._left.items():
            free = self._most_flying() - len(self._flying)
            for _ in range(min(len(lines), free, self._around.places.room(model, self._batch.id))):
                line = lines.popleft()
                self._around.places.enter(model, self._batch.id, line.size)
                flight = asyncio.ensure_future(self._fly(model, line, file))
                self._flying.add(flight)
                flight.add_done_callback(partial(self._landed, model, line))

    def _most_flying(self) -> int:
        """By what its tenant may have waiting or open in a router: more would be refused."""
        holder = self._holder()
        limits = () if holder is None else (holder.tenant.max_open_requests, holder.tenant.max_queued_requests)
        return min((limit for limit in limits if limit is not None), default=sys.maxsize)

    def _holder(self) -> Holder | None:
        return self._around.ring.holder(self._batch.tenant, self._batch.key, self._batch.models)

    def _landed(self, model: str, line: Line, flight: asyncio.Task[None]) -> None:
        self._flying.discard(flight)
        self._around.places.exit(model, self._batch.id, line.size)
        if not flight.cancelled() and (error := flight.exception()) is not None:
            self._error = error
        self._news.set()

    async def _land(self) -> None:
        """Whatever is in flight is given up, in engines too."""
        await _end(*self._flying)
        for model in self._left:
            self._around.places.leave(model, self._batch.id)

    async def _fly(self, model: str, line: Line, file: IO[bytes]) -> None:
        """Asks a line; what comes of it is kept, or it is asked again."""
        text = await asyncio.to_thread(read_at, file, line.offset, line.size)
        custom_id, body, _ = read_line(text, self._batch.endpoint)
        answer = await self._answer(body)
        if failed_with_engine(answer):
            self._failures[line.number] += 1
        left_s = self._batch.expires_s - time()
        retry = again(answer, failures=self._failures[line.number], left_s=left_s)
        if retry is None:
            kept, what = line_texts.answered(self._batch.id, line.number, custom_id, answer)
            self._keeper.add(Outcome(line.number, kept, what), tokens(answer.body) if kept else (0, 0, 0))
            return
        if retry.everything:
            self._paused_until_s = max(self._paused_until_s, monotonic() + retry.in_s)
        else:
            await asyncio.sleep(retry.in_s)
        self._left[model].appendleft(line)

    async def _answer(self, body: bytes) -> Answer:
        batch = self._batch
        try:
            return await ask(
                self._around.routes[batch.endpoint],
                batch.endpoint,
                body,
                holder=self._holder(),
                tier=routing.Tier.BATCH,
                headers={PREFER: routing.Prefer.COST.encode()},
            )
        except Exception as error:
            self._around.log(f"{batch.id}: a line failed: {type(error).__name__}: {error}")
            return Answer(500, body=msgspec.json.encode({"error": {"message": "This server failed.", "code": None}}))

    def _unasked(self, told: Input, file: IO[bytes], end: Status) -> Iterator[Outcome]:
        """What is told of the lines that are left."""
        left = (line for line in told.lines if line.number not in self._keeper.done)
        for line in sorted(left, key=lambda line: line.number):
            text = read_at(file, line.offset, line.size)
            yield Outcome(line.number, False, line_texts.unasked(self._batch.id, line.number, text, end))

    async def _finish(self, end: Status, left: Iterator[Outcome]) -> None:
        """Writes its files and ends it. Whoever is killed before that leaves the next one to do it again."""
        keeper = self._keeper
        if end is Status.COMPLETED and keeper.status is not Status.FINALIZING:
            await keeper.move(Status.FINALIZING, {"finalizing_s": time()})
            if keeper.status is Status.CANCELLING:
                end = Status.CANCELLED
        await keeper.keep_all()
        shelf = self._around.shelf
        files = await self._around.store.ask(lambda store: output.write(store, shelf, self._batch, left))
        errors = list(keeper.errors)
        if end is Status.CANCELLED and self._around.ring.revoked(self._batch.key):
            errors.append(_told("key_revoked", "The key that asked for this batch was revoked."))
        await keeper.end(end, {"errors": errors}, files)

    async def _fail(self, code: str, message: str, told: Input | None = None) -> None:
        """Ends it because of its file. What came of its lines earlier is in its files nevertheless."""
        wrong = [] if told is None else [line.told() for line in told.wrong[:MOST_ERRORS]]
        self._keeper.errors = [_told(code, message), *wrong]
        cancelled = self._keeper.status is Status.CANCELLING
        await self._finish(Status.CANCELLED if cancelled else Status.FAILED, iter(()))


def _told(code: str, message: str) -> dict[str, Any]:
    return {"code": code, "line": None, "message": message, "param": None}


def _wrong_in_all(told: Input) -> tuple[str, str] | None:
    """Code and message, where a file as a whole is no batch."""
    if told.too_many:
        return "too_many_lines", f"The input file has more than {told.most_lines} lines."
    if not told.total:
        return "empty_file", "The input file has no lines."
    return None if told.lines else ("invalid_lines", "No line of the input file can be asked.")


async def _end(*tasks: asyncio.Future[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
