"""How are batches asked for, listed, looked at and cancelled over HTTP? OpenAI's `/v1/batches`."""

import secrets
from collections.abc import Callable
from time import time
from typing import Any, TypeVar

from deployments.batches import stored_batches
from deployments.batches.batch import WINDOW_S, Batch
from deployments.batches.state import Status
from deployments.batches.stored_batches import TooManyOpen
from deployments.batches.wire import asked, batch_body, files_kept_s
from deployments.files import stored_files
from deployments.files.routes import answer, from_store, no_such, tenant_of
from deployments.files.wire import BATCH, listing, page
from deployments.fleet import RouterSettings
from deployments.late_store import LateStore
from deployments.openai_wire import ApiError
from deployments.receiving import Receive, Scope, read_body
from deployments.reply import Send

USUAL_LISTED, MOST_LISTED = 20, 100

T = TypeVar("T")


class BatchRoutes:
    """The batches of each tenant. Any router may run one that was asked for here."""

    def __init__(self, store: LateStore, settings: RouterSettings) -> None:
        self._store, self._settings = store, settings

    async def create(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Takes a batch in. It is run, whatever is killed, once this was answered."""
        request, tenant, now_s = asked(await read_body(receive, self._settings.limits)), tenant_of(scope), time()
        kept_s = files_kept_s(request)
        file = await self._ask(stored_files.one, tenant, request.input_file_id, now_s)
        if file is None:
            raise no_such("file", request.input_file_id, "input_file_id")
        if file.purpose != BATCH:
            message = f"The file's purpose is {file.purpose}, and must be {BATCH}."
            raise ApiError(400, message, param="input_file_id", code="invalid_purpose")
        holder = scope["holder"]
        batch = Batch(
            id=f"batch_{secrets.token_hex(16)}",
            tenant=tenant,
            key=holder.key if holder is not None else "",
            models=None if holder is None or holder.models is None else tuple(sorted(holder.models)),
            endpoint=request.endpoint,
            input_file=file.id,
            about=request.metadata,
            files_kept_s=kept_s,
            created_s=now_s,
            expires_s=now_s + WINDOW_S,
        )
        most_open = self._settings.limits.tenant_open_batches
        try:
            await self._ask(stored_batches.add, batch, most_open)
        except TooManyOpen:
            message = f"{most_open} batches have not ended, and no more may be open at once."
            raise ApiError(429, message, kind="rate_limit_error", code="too_many_batches") from None
        await answer(send, batch_body(batch))

    async def list(self, scope: Scope, _receive: Receive, send: Send) -> None:
        part = page(scope["query_string"], usual=USUAL_LISTED, most=MOST_LISTED)
        found = await self._ask(stored_batches.listed, tenant_of(scope), limit=part.limit + 1, after=part.after)
        if found is None:
            raise no_such("batch", part.after or "", "after")
        await answer(send, listing([batch_body(batch) for batch in found], part.limit))

    async def retrieve(self, name: str, scope: Scope, _receive: Receive, send: Send) -> None:
        batch = await self._ask(stored_batches.one, tenant_of(scope), name)
        await answer(send, batch_body(_there(batch, name)))

    async def cancel(self, name: str, scope: Scope, _receive: Receive, send: Send) -> None:
        """Asks its router to stop. One that ends anyway is refused."""
        batch = _there(await self._ask(stored_batches.cancel, tenant_of(scope), name, time()), name)
        if batch.status not in (Status.CANCELLING, Status.CANCELLED):
            raise ApiError(409, f"A batch that is {batch.status} can't be cancelled.", code="not_cancellable")
        await answer(send, batch_body(batch))

    async def _ask(self, what: Callable[..., T], *given: Any, **named: Any) -> T:
        return await from_store(self._store, what, *given, **named)


def _there(batch: Batch | None, name: str) -> Batch:
    if batch is None:
        raise no_such("batch", name)
    return batch
