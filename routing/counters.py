"""How much has each tenant been served, and who is next by that?

Virtual token counters (Sheng et al., "Fairness in serving large language models", OSDI 2024): a tenant's counter grows
by the tokens that it was served, over its weight, and the least counter is served next. One that comes back after
idling is lifted to the least of those that are waiting, so that nobody saves up service. A prompt's tokens count when
it leaves for a replica, an answer's as they are made.
"""

from collections.abc import Mapping, Sequence

FLOOR = (0.0, 0.1, 0.05)
"""By tier: of the tokens that leave for more urgent tiers while it waits, the share that is owed to it."""


class Counters:
    """Tokens served over weight, by tenant. A tenant without a weight has 1."""

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        self._weights = dict(weights or {})
        self._served: dict[str, float] = {}
        self._refunds: dict[str, float] = {}

    def of(self, tenant: str) -> float:
        return self._served.get(tenant, 0.0)

    def weight(self, tenant: str) -> float:
        return self._weights.get(tenant, 1.0)

    def weigh(self, tenant: str, weight: float) -> None:
        """From now on this is the tenant's weight."""
        self._weights[tenant] = weight

    def charge(self, tenant: str, tokens: float) -> None:
        """The tenant was served so many tokens."""
        if tenant in self._refunds:
            tokens = self._set_off(tenant, tokens)
        self._served[tenant] = self._served.get(tenant, 0.0) + tokens / self._weights.get(tenant, 1.0)

    def refund(self, tenant: str, tokens: float) -> None:
        """So many tokens were charged too much: they are taken off later charges, so that counters only grow."""
        self._refunds[tenant] = self._refunds.get(tenant, 0.0) + tokens

    def lift(self, tenant: str, least: float) -> None:
        """The tenant comes back from idling, where the least counter of those that wait is `least`."""
        if self.of(tenant) < least:
            self._served[tenant] = least

    def _set_off(self, tenant: str, tokens: float) -> float:
        refund = self._refunds.pop(tenant)
        if refund > tokens:
            self._refunds[tenant] = refund - tokens
        return max(0.0, tokens - refund)


class Floors:
    """What is owed to tiers that wait while more urgent ones are served."""

    def __init__(self) -> None:
        self._owed = [0.0] * len(FLOOR)

    def due(self, heads: Sequence[int | None]) -> int | None:
        """The tier whose turn it is, given the tokens of each tier's next request (None: nothing waits).

        The least urgent tier that is owed its next request in full; else the most urgent one that waits.
        """
        for tier in range(len(heads) - 1, 0, -1):
            tokens = heads[tier]
            if tokens is None:
                self._owed[tier] = 0.0
            elif self._owed[tier] >= tokens:
                return tier
        for tier, tokens in enumerate(heads):
            if tokens is not None:
                return tier
        return None

    def clear(self) -> None:
        """Nothing waits: nothing is owed."""
        self._owed = [0.0] * len(FLOOR)

    def owes(self, tier: int, tokens: int) -> bool:
        """Whether a request of that tier may go although more urgent ones would rather have the place."""
        return tier > 0 and self._owed[tier] >= tokens

    def left(self, tier: int, tokens: int) -> None:
        """A request left for a replica: less urgent tiers are owed a share, its own is paid."""
        for other in range(tier + 1, len(FLOOR)):
            self._owed[other] += FLOOR[other] * tokens
        if tier:
            self._owed[tier] = max(0.0, self._owed[tier] - tokens)
