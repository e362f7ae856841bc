"""Which variant of its model should serve a request?

The best one that its sender allows, while first tokens come in time there; else the next cheaper one where they do.
Who prefers cost gets the cheapest. A conversation stays where it was: its cache is there, and its tone.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

FULL_SHARE = 0.75
"""Of the target for first tokens: a variant whose wait is longer is overloaded. What is left of the target is for
reading the prompt itself, so that who still joins it is served in time."""
FREE_SHARE = 0.375
"""And where the wait is shorter again, it is overloaded no more."""
LASTS_S = 5.0
"""A conversation leaves a variant that has been overloaded for so long."""
FORGET_S = 600.0
"""A conversation that was silent for so long begins anew: its cache is hardly there any more."""
MOST_CONVERSATIONS = 1 << 15
"""Remembered; the longest silent are forgotten first."""


class Prefer(StrEnum):
    """What a request would rather have."""

    BEST = "best"
    COST = "cost"


class Why(StrEnum):
    """Why a variant was taken."""

    BEST = "best"
    """The best one allowed."""
    COST = "cost"
    """The cheapest one allowed, as the request prefers."""
    OVERLOAD = "overload"
    """Better ones are overloaded."""
    STAYS = "stays"
    """Its conversation was there."""
    ABSENT = "absent"
    """None that is allowed serves now, or no better one does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One variant at this moment, as the sender of a request meets it."""

    name: str
    quality: float
    """Share of its model's; of two variants, that of less quality is the cheaper one."""
    serves: bool
    """A replica would take a request now."""
    wait_s: float = 0.0
    """Predicted seconds until a prompt that comes now begins to be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What a request asks of variants."""

    prefer: Prefer = Prefer.BEST
    min_quality: float = 0.0
    """Nothing of less serves it: the larger of its own and its tenant's."""
    conversation: Hashable = None
    """The same for every request of a conversation; None: it belongs to none."""
    sender: Hashable = None
    """The same for requests that wait alike, such as those of one tenant and tier."""


@dataclass(slots=True)
class Ladder:
    """The variants of one model in one router, and what was chosen there before."""

    ttft_s: float
    """Seconds within which users should have their first token."""
    most_conversations: int = MOST_CONVERSATIONS
    _full_since_s: dict[tuple[Hashable, str], float] = field(default_factory=dict)
    """By sender and variant, of those that are overloaded."""
    _stays: OrderedDict[tuple[Hashable, Prefer], tuple[str, float]] = field(default_factory=OrderedDict)
    """By conversation and preference: its variant, and when it last asked. The longest silent first."""

    def choose(self, variants: Sequence[Variant], wish: Wish, *, now_s: float) -> tuple[Variant, Why]:
        """The variant for a request, and why. Of those that are allowed, the best one where none serves.

        Raises ValueError when none has the quality that is asked for.
        """
        allowed = sorted((one for one in variants if one.quality >= wish.min_quality), key=_worse)
        if not allowed:
            raise ValueError(f"no variant has quality {wish.min_quality:g}")
        serving = [one for one in allowed if one.serves]
        if not serving:
            return allowed[0], Why.ABSENT
        self._watch(serving, wish.sender, now_s)
        if (stays := self._stay(serving, wish, now_s)) is not None:
            chosen, why = stays, Why.STAYS
        elif wish.prefer is Prefer.COST:
            chosen, why = serving[-1], Why.COST
        else:
            chosen = self._in_time(serving, wish.sender)
            why = Why.BEST if chosen is allowed[0] else Why.OVERLOAD if chosen is not serving[0] else Why.ABSENT
        self._remember(chosen, wish, now_s)
        return chosen, why

    def _watch(self, serving: Sequence[Variant], sender: Hashable, now_s: float) -> None:
        """Notes which variants are overloaded, with two thresholds: a wait around one of them changes nothing."""
        for one in serving:
            if one.wait_s > FULL_SHARE * self.ttft_s:
                self._full_since_s.setdefault((sender, one.name), now_s)
            elif one.wait_s < FREE_SHARE * self.ttft_s:
                self._full_since_s.pop((sender, one.name), None)

    def _in_time(self, serving: Sequence[Variant], sender: Hashable) -> Variant:
        """The best one that is not overloaded; if all are, that of the shortest wait."""
        free = next((one for one in serving if (sender, one.name) not in self._full_since_s), None)
        return free or min(serving, key=lambda one: one.wait_s)

    def _stay(self, serving: Sequence[Variant], wish: Wish, now_s: float) -> Variant | None:
        """Where the conversation goes on; None where it must begin anew."""
        name, asked_s = self._stays.get((wish.conversation, wish.prefer), ("", now_s))
        one = next((one for one in serving if one.name == name), None)
        if one is None or wish.conversation is None or now_s - asked_s > FORGET_S:
            return None
        full_s = now_s - self._full_since_s.get((wish.sender, name), now_s)
        others = any((wish.sender, other.name) not in self._full_since_s for other in serving)
        return None if full_s >= LASTS_S and others and wish.prefer is Prefer.BEST else one

    def _remember(self, chosen: Variant, wish: Wish, now_s: float) -> None:
        if wish.conversation is None:
            return
        key = (wish.conversation, wish.prefer)
        self._stays[key] = (chosen.name, now_s)
        self._stays.move_to_end(key)
        if len(self._stays) > self.most_conversations:
            self._stays.popitem(last=False)


def _worse(variant: Variant) -> float:
    return -variant.quality
