"""On whose behalf does a request come, how urgent may it be, and what does it ask of variants?"""

from collections.abc import Iterable
from math import inf, isfinite

import routing
from deployments.admission import TenantLimits
from deployments.fleet import Deadlines, Tenant
from deployments.key_ring import Headers, Holder
from deployments.openai_wire import ApiError
from deployments.sender import Sender

TIERS = {
    "priority": routing.Tier.INTERACTIVE,
    "auto": routing.Tier.STANDARD,
    "default": routing.Tier.STANDARD,
    "scale": routing.Tier.STANDARD,
    "standard_only": routing.Tier.STANDARD,
    "flex": routing.Tier.BATCH,
}
"""By `service_tier`: OpenAI's names, and Anthropic's."""
DEADLINE = b"x-headrace-deadline-s"
PREFER = b"x-headrace-prefer"
MIN_QUALITY = b"x-headrace-min-quality"


def sender(
    holder: Holder | None,
    headers: Headers,
    service_tier: object,
    deadlines: Deadlines,
    at_most: routing.Tier = routing.Tier.INTERACTIVE,
) -> Sender:
    """On whose behalf a request comes, and how urgently: no more than `at_most`. `deadlines` are for those that name
    none.

    Raises ApiError(400) for what it asks.
    """
    tier = max(_tier(service_tier), at_most)
    if holder is not None:
        tier = max(tier, routing.Tier[holder.tenant.tier.upper()])
    deadline_s = _deadline_s(headers) or getattr(deadlines, tier.name.lower()) or inf
    if holder is None:
        return Sender(tier=tier, deadline_s=deadline_s)
    tenant = holder.tenant.name
    return Sender(
        tenant=tenant,
        key=holder.key,
        tier=tier,
        deadline_s=deadline_s,
        cache_salt=tenant,
        limits=holder.limits,
        account=holder.account,
    )


def wish(
    holder: Holder | None, by: Sender, headers: Headers, service_tier: object, opening: int | None
) -> routing.Wish:
    """What a request asks of its model's variants. `opening`: the same for each request of a conversation.

    Raises ApiError(400) for what it asks.
    """
    prefer, least = _prefer(headers, service_tier), _min_quality(headers)
    return routing.Wish(
        prefer=prefer,
        min_quality=max(least, holder.tenant.min_quality if holder is not None else 0.0),
        conversation=None if opening is None else (by.tenant, opening),
        sender=(by.tenant, by.tier),
    )


def weights(tenants: Iterable[Tenant]) -> dict[str, float]:
    """By name."""
    return {tenant.name: tenant.weight for tenant in tenants}


def limits(tenants: Iterable[Tenant]) -> dict[str, TenantLimits]:
    """By name."""
    return {
        tenant.name: TenantLimits(queued_requests=tenant.max_queued_requests, open_requests=tenant.max_open_requests)
        for tenant in tenants
    }


def _tier(service_tier: object) -> routing.Tier:
    if service_tier is None:
        return routing.Tier.STANDARD
    tier = TIERS.get(service_tier) if isinstance(service_tier, str) else None
    if tier is None:
        raise ApiError(400, f"'service_tier' must be one of: {', '.join(TIERS)}.", param="service_tier")
    return tier


def _deadline_s(headers: Headers) -> float | None:
    value = next((value for name, value in headers if name == DEADLINE), None)
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        seconds = 0.0
    if not isfinite(seconds) or seconds <= 0:
        name = DEADLINE.decode()
        raise ApiError(400, f"The header {name} must be a number of seconds above 0.", param=name)
    return seconds


def _prefer(headers: Headers, service_tier: object) -> routing.Prefer:
    """By its header, else by its service tier."""
    value = next((value for name, value in headers if name == PREFER), None)
    if value is None:
        return routing.Prefer.COST if service_tier == "flex" else routing.Prefer.BEST
    try:
        return routing.Prefer(value.decode("latin-1"))
    except ValueError:
        name = PREFER.decode()
        raise ApiError(400, f"The header {name} must be one of: {', '.join(routing.Prefer)}.", param=name) from None


def _min_quality(headers: Headers) -> float:
    value = next((value for name, value in headers if name == MIN_QUALITY), b"0")
    try:
        quality = float(value)
    except ValueError:
        quality = -1.0
    if not 0 <= quality <= 1:
        name = MIN_QUALITY.decode()
        raise ApiError(400, f"The header {name} must be a number from 0 to 1.", param=name)
    return quality
