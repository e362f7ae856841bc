"""What is a key that Headrace makes, and what is kept of it?

256 random bits: nobody can try them all, so a plain SHA-256 keeps them as secret as a slow hash would, which is for
what people think up, and costs a router two microseconds instead of a tenth of a second.
"""

import secrets
from dataclasses import dataclass
from hashlib import sha256

import routing

BEGIN = "hr-"
"""Of each key, so that those who look for leaked secrets know one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ApiKey:
    """What is kept of a key; times are seconds since 1970."""

    id: str
    """Names it in lists and in usage. It stands in the key too: `hr-ID-...`."""
    hash: str
    """SHA-256, in hexadecimal."""
    tenant: str
    models: tuple[str, ...] | None = None
    """Models of the fleet that it may ask. None: all."""
    note: str = ""
    created_s: float
    expires_s: float | None = None
    revoked_s: float | None = None
    limits: tuple[routing.Limit, ...] = ()
    """Of this key alone, beside those of its tenant."""
    account: str | None = None
    """Under whose id its limits are counted: of the key that it replaced, or of the first of several. None: its own."""

    def state(self, now_s: float) -> str:
        """`works`, `revoked` or `expired`."""
        if self.revoked_s is not None:
            return "revoked"
        return "expired" if self.expires_s is not None and now_s >= self.expires_s else "works"


def new_key(
    tenant: str,
    *,
    now_s: float,
    models: tuple[str, ...] | None = None,
    note: str = "",
    expires_s: float | None = None,
    limits: tuple[routing.Limit, ...] = (),
    account: str | None = None,
) -> tuple[str, ApiKey]:
    """A key to be shown once, and what is kept of it."""
    name = secrets.token_hex(4)
    text = f"{BEGIN}{name}-{secrets.token_urlsafe(32)}"
    kept = ApiKey(
        id=name,
        hash=hash_of(text.encode()),
        tenant=tenant,
        models=models,
        note=note,
        created_s=now_s,
        expires_s=expires_s,
        limits=limits,
        account=account,
    )
    return text, kept


def hash_of(key: bytes) -> str:
    """As kept."""
    return sha256(key).hexdigest()
