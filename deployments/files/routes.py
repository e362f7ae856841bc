"""How do files come in, and how are they listed, read and deleted over HTTP? OpenAI's `/v1/files`."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from functools import partial
from time import time
from typing import IO, Any, TypeVar

import msgspec

from deployments.files import stored_files, wire
from deployments.files.shelf import Shelf
from deployments.files.stored_files import File, StoredTooMuch
from deployments.files.upload import Form, parts, wrong
from deployments.fleet import RouterSettings
from deployments.late_store import LateStore
from deployments.openai_wire import ApiError
from deployments.receiving import Receive, Scope, wait_for_disconnect
from deployments.reply import Send, respond
from deployments.store import StoreError

PIECE_BYTES = 1 << 20
"""Written or read at once."""
MOST_LISTED = 10_000

T = TypeVar("T")


class FileRoutes:
    """The files of each tenant."""

    def __init__(self, store: LateStore, shelf: Shelf, settings: RouterSettings) -> None:
        self._store, self._shelf, self._settings = store, shelf, settings

    async def create(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Takes a file in. It is kept, whatever is killed, once this was answered."""
        body = parts(receive, self._settings)
        try:
            file = await self._take_in(scope, body)
        except ApiError:
            async for _ in body:  # who is cut off in the midst may never read why
                pass
            raise
        await answer(send, wire.file_body(file))

    async def list(self, scope: Scope, _receive: Receive, send: Send) -> None:
        page = wire.page(scope["query_string"], usual=MOST_LISTED, most=MOST_LISTED)
        files = await self.ask(
            stored_files.listed,
            tenant_of(scope),
            time(),
            limit=page.limit + 1,
            after=page.after,
            newest_first=page.newest_first,
            purpose=page.purpose,
        )
        if files is None:
            raise no_such("file", page.after or "", "after")
        await answer(send, wire.listing([wire.file_body(file) for file in files], page.limit))

    async def retrieve(self, name: str, scope: Scope, _receive: Receive, send: Send) -> None:
        await answer(send, wire.file_body(await self._one(scope, name)))

    async def content(self, name: str, scope: Scope, receive: Receive, send: Send) -> None:
        """All of a file, for as long as its reader is there."""
        file = await self._one(scope, name)
        opened = await on_shelf(self._shelf.open, name)
        leaving = asyncio.ensure_future(wait_for_disconnect(receive))
        try:
            size = str(file.size_bytes).encode()
            headers = [(b"content-type", b"application/octet-stream"), (b"content-length", size)]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            left = file.size_bytes
            if not left:
                await send({"type": "http.response.body", "body": b""})
            while left and (piece := await asyncio.to_thread(opened.read, PIECE_BYTES)) and not leaving.done():
                left -= len(piece)
                await send({"type": "http.response.body", "body": piece, "more_body": left > 0})
        finally:
            leaving.cancel()
            await asyncio.to_thread(opened.close)

    async def delete(self, name: str, scope: Scope, _receive: Receive, send: Send) -> None:
        """Nobody finds it from now on. Its bytes go when no batch reads from it any more."""
        if not await self.ask(stored_files.drop, tenant_of(scope), name, time()):
            raise no_such("file", name)
        await answer(send, {"id": name, "object": "file", "deleted": True})

    async def ask(self, what: Callable[..., T], *given: Any, **named: Any) -> T:
        return await from_store(self._store, what, *given, **named)

    async def _one(self, scope: Scope, name: str) -> File:
        file = await self.ask(stored_files.one, tenant_of(scope), name, time())
        if file is None:
            raise no_such("file", name)
        return file

    async def _take_in(self, scope: Scope, body: AsyncIterator[bytes]) -> File:
        name, tenant, now_s, limits = new_name(), tenant_of(scope), time(), self._settings.limits
        if await self.ask(stored_files.total_bytes, tenant) >= limits.tenant_files_bytes:
            raise _too_much(limits.tenant_files_bytes)
        form = Form(dict(scope["headers"]).get(b"content-type", b""), limits.file_bytes)
        await self.ask(stored_files.coming, name, tenant, now_s)
        try:
            await self._write(name, form, body)
            file = _file(name, tenant, form, now_s)
            await self.ask(stored_files.keep, file, limits.tenant_files_bytes)
        except BaseException as error:
            await self._give_up(name)
            if isinstance(error, StoredTooMuch):
                raise _too_much(limits.tenant_files_bytes) from None
            raise
        return file

    async def _write(self, name: str, form: Form, body: AsyncIterator[bytes]) -> None:
        """The bytes of the one file in a body go to the shelf as they come."""
        opened = await on_shelf(self._shelf.create, name)
        try:
            waiting = bytearray()
            async for part in body:
                waiting += form.feed(part)
                if len(waiting) >= PIECE_BYTES:
                    waiting = await _write(opened, waiting)
            if not form.whole or form.filename is None:
                raise wrong("The body ends early." if not form.whole else "The body has no part 'file'.", "file")
            await _write(opened, waiting)
            await on_shelf(self._shelf.finish, opened)
        finally:
            await asyncio.to_thread(opened.close)

    async def _give_up(self, name: str) -> None:
        """Where the store can't be told, the row is found by its age."""
        try:
            await self._store.ask(stored_files.give_up, name)
        except StoreError:
            return


def tenant_of(scope: Scope) -> str:
    """Whose files and batches a request sees. Who needs no key shares them with all others who bring none."""
    return scope["holder"].tenant.name if scope["holder"] is not None else ""


def new_name() -> str:
    """Of a file."""
    return f"file-{secrets.token_hex(12)}"


def no_such(kind: str, name: str, param: str = "id") -> ApiError:
    """Or it is another tenant's."""
    return ApiError(404, f"No such {kind}: '{name}'.", param=param, code="not_found")


async def answer(send: Send, body: Any) -> None:
    await respond(send, 200, msgspec.json.encode(body))


async def from_store(store: LateStore, what: Callable[..., T], *given: Any, **named: Any) -> T:
    """What the store says. Raises ApiError(503) where it can't be asked."""
    try:
        return await store.ask(what, *given, **named)
    except StoreError:
        message = "This server can't reach its store at the moment."
        raise ApiError(503, message, kind="server_error", code="store_unavailable", retry_after_s=2) from None


async def on_shelf(what: Callable[..., T], *given: Any) -> T:
    """The same of the place where files lie, whose own errors are of any kind."""
    try:
        return await asyncio.to_thread(what, *given)
    except Exception as error:
        message = f"This server can't reach its files at the moment ({type(error).__name__})."
        raise ApiError(503, message, kind="server_error", code="files_unavailable", retry_after_s=5) from error


async def _write(opened: IO[bytes], waiting: bytearray) -> bytearray:
    if waiting:
        await on_shelf(partial(opened.write, bytes(waiting)))
    return bytearray()


def _file(name: str, tenant: str, form: Form, now_s: float) -> File:
    """What the fields say of it. Raises ApiError(400)."""
    if (purpose := form.fields.get("purpose")) != wire.BATCH:
        raise ApiError(400, f"'purpose' must be batch, not {purpose!r}.", param="purpose")
    anchor, seconds = (form.fields.get(f"expires_after[{name}]") for name in ("anchor", "seconds"))
    kept_s = wire.INPUT_KEPT_S
    if anchor is not None or seconds is not None:
        kept_s = wire.kept_s(anchor, seconds, "expires_after")
    return File(
        id=name,
        tenant=tenant,
        filename=form.filename or wire.BATCH,
        purpose=purpose,
        size_bytes=form.size_bytes,
        created_s=now_s,
        expires_s=now_s + kept_s,
    )


def _too_much(most_bytes: int) -> ApiError:
    message = f"Your files would take more than {most_bytes} bytes in all. Delete some."
    return ApiError(413, message, param="file", code="files_too_large")
