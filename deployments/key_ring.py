"""Whose key does a request bring, and may who brings none come in?

Keys are compared as hashes and in constant time. No key is ever written anywhere, nor a hash of one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest
from itertools import chain
from time import time

import routing
from deployments.api_key import ApiKey
from deployments.openai_wire import ApiError
from deployments.tenant import Tenant

RETRY_S = 2
"""Told while the store's keys are not known: about the time to the next look."""

Headers = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """Who holds a key, and what it opens."""

    tenant: Tenant
    key: str
    """Its id in the store; of a key in fleet.yaml `file-N`, by its place among the tenant's."""
    models: frozenset[str] | None = None
    """None: all."""
    expires_s: float | None = None
    """Since 1970."""
    limits: tuple[routing.Limit, ...] = ()
    """Of the key alone."""
    account: str = ""
    """In the fleet's ledger, where they are counted."""


class KeyRing:
    """The keys of a fleet's file, and of its store as far as they were told.

    `lets_in`: whether who has no key comes in; None: while there is neither a tenant nor a key. `stored` is None until
    the store's keys are known, empty where there is no store.
    """

    def __init__(
        self, tenants: Sequence[Tenant], *, lets_in: bool | None = None, stored: Sequence[ApiKey] | None = ()
    ) -> None:
        self._tenants = {tenant.name: tenant for tenant in tenants}
        self._lets_in = lets_in
        self.hear(stored)

    def hear(self, stored: Sequence[ApiKey] | None) -> None:
        """These keys are in the store now, those that work no longer among them."""
        self._known = stored is not None
        self._anybody = (not self._tenants and self._known and not stored) if self._lets_in is None else self._lets_in
        self._stored = {key.id: key for key in stored or ()}
        holders = chain(self._of_file(), (self._of_store(key) for key in stored or () if key.revoked_s is None))
        self._by_start: dict[str, list[tuple[str, Holder]]] = {}
        for key_hash, holder in holders:
            self._by_start.setdefault(key_hash[:4], []).append((key_hash, holder))

    def identify(self, headers: Headers) -> Holder | None:
        """Whose key it is; None for who comes in without one. Raises ApiError(401), or 503 while that is not known."""
        if self._anybody and not self._by_start:
            return None
        key = _key(headers)
        holder = self._find(key) if key is not None else None
        if holder is not None and (holder.expires_s is None or time() < holder.expires_s):
            return holder
        if self._anybody:
            return None
        if key is None:
            raise _unauthorized("This server needs an API key: `Authorization: Bearer KEY`.")
        if holder is None and not self._known:
            message = "This server can't read its keys at the moment."
            raise ApiError(503, message, kind="server_error", code="keys_unknown", retry_after_s=RETRY_S)
        raise _unauthorized("The API key has expired." if holder else "The API key is not one of this server's.")

    def holder(self, tenant: str, key: str, models: Iterable[str] | None) -> Holder | None:
        """Who asked earlier with a key, on today's terms, whether or not it still works; None for who brought none."""
        if not tenant:
            return None
        opens = None if models is None else frozenset(models)
        known = self._stored.get(key)
        limits, account = (known.limits, _account(known)) if known is not None else ((), "")
        asker = self._tenants.get(tenant) or Tenant(name=tenant)
        return Holder(tenant=asker, key=key, models=opens, limits=limits, account=account)

    def revoked(self, key: str) -> bool:
        """Whether its owner ended a key of the store: not that it expired, nor that it was replaced."""
        return key in self._stored and self._stored[key].revoked_s is not None

    def _find(self, key: bytes) -> Holder | None:
        digest, found = sha256(key).hexdigest(), None
        for key_hash, holder in self._by_start.get(digest[:4], ()):
            if compare_digest(digest, key_hash):
                found = holder
        return found

    def _of_file(self) -> Iterable[tuple[str, Holder]]:
        for tenant in self._tenants.values():
            for place, key_hash in enumerate(tenant.key_hashes, 1):
                yield key_hash, Holder(tenant=tenant, key=f"file-{place}")

    def _of_store(self, key: ApiKey) -> tuple[str, Holder]:
        tenant = self._tenants.get(key.tenant) or Tenant(name=key.tenant)
        models = None if key.models is None else frozenset(key.models)
        return key.hash, Holder(
            tenant=tenant,
            key=key.id,
            models=models,
            expires_s=key.expires_s,
            limits=key.limits,
            account=_account(key),
        )


def _account(key: ApiKey) -> str:
    """No tenant's name has a blank in it."""
    return f"key {key.account or key.id}"


def _key(headers: Headers) -> bytes | None:
    """From OpenAI's header, or Anthropic's."""
    for name, value in headers:
        if name == b"authorization" and value[:7].lower() == b"bearer ":
            return value[7:].strip()
        if name == b"x-api-key":
            return value.strip()
    return None


def _unauthorized(message: str) -> ApiError:
    return ApiError(401, message, kind="authentication_error", code="invalid_api_key")
