"""Which models does the router offer, and what do its routes need of each?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deployments.key_ring import Holder
from deployments.lane import Lane
from deployments.openai_wire import ApiError
from deployments.render import Renderer
from deployments.sender import Sender
from deployments.variants import Door, Variants
from routing import Wish


@dataclass(eq=False, slots=True)
class Desk:
    """What the routes need of one model."""

    lane: Lane
    """Of the model itself."""
    renderer: Renderer
    created: int
    wakes: bool
    """It may have no replica until somebody asks."""
    reasons: bool = False
    """Its text is parsed for reasoning, which vLLM's application does: every chat goes there."""
    variants: Variants | None = None
    """None: the model alone answers."""

    @property
    def lanes(self) -> list[Lane]:
        """Of the model itself, and of its variants."""
        return [self.lane] if self.variants is None else self.variants.lanes

    @property
    def pooling(self) -> str | None:
        """What its replicas give instead of text, by vLLM's name; vLLM's application refuses what asks for text."""
        replicas = (one for lane in self.lanes for one in lane.replicas.values())
        return next((task for one in replicas if (task := one.facts.get("pooling"))), None)

    def ready(self) -> bool:
        """Whether a replica would take a request now."""
        return any(lane.ready() for lane in self.lanes)

    def door(self, by: Sender, wish: Wish) -> Door:
        """Where a request goes in."""
        return Door(self.lane, self.lane.model) if self.variants is None else self.variants.door(by, wish)


Desks = Mapping[str, Desk]
"""By model name, in the fleet's order."""


def opened(desks: Desks, holder: Holder | None) -> Desks:
    """Those that a key opens; all of them where nobody needs one."""
    if holder is None or holder.models is None:
        return desks
    return {name: desk for name, desk in desks.items() if name in holder.models}


def asked(desks: Desks, fields: dict[str, Any] | None, holder: Holder | None) -> Desk:
    """The desk that a forwarded body is for; with one model, a body need not name it.

    Raises ApiError(400, 403, 404).
    """
    name = fields.get("model") if fields is not None else None
    if isinstance(name, str) and name:
        return by_name(desks, name, holder)
    if len(desks) == 1:
        return by_name(desks, next(iter(desks)), holder)
    if fields is None:
        raise ApiError(400, "The body must be a JSON object.", code="invalid_json")
    raise ApiError(400, f"'model' must be one of: {', '.join(desks)}.", param="model")


def by_name(desks: Desks, model: str, holder: Holder | None) -> Desk:
    """Raises ApiError(404), or 403 where the key does not open it."""
    desk = desks.get(model)
    if desk is None:
        known = ", ".join(desks)
        raise ApiError(
            404,
            f"The model '{model}' does not exist. This server has: {known}.",
            param="model",
            code="model_not_found",
        )
    if holder is not None and holder.models is not None and model not in holder.models:
        message = f"This key does not open the model '{model}'."
        raise ApiError(403, message, kind="permission_error", param="model", code="model_not_allowed")
    return desk


def card(name: str, desk: Desk) -> dict[str, Any]:
    """What /v1/models says of it."""
    return {
        "id": name,
        "object": "model",
        "created": desk.created,
        "owned_by": "headrace",
        "max_model_len": desk.lane.max_model_len,
        "pooling": desk.pooling,
        **({} if desk.variants is None else {"variants": desk.variants.cards()}),
    }
