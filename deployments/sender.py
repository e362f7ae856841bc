"""On whose behalf does a request come, and how urgently?"""

from dataclasses import dataclass
from math import inf
from time import monotonic

import routing


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """A tenant, and what it asks for with one request."""

    tenant: str = ""
    tier: routing.Tier = routing.Tier.STANDARD
    deadline_s: float = inf
    """Seconds from now within which the first token must come."""
    key: str = ""
    """Which of the tenant's keys, by its id."""
    cache_salt: str | None = None
    """Requests share cached prefixes only with requests of the same salt."""
    limits: tuple[routing.Limit, ...] = ()
    """Of the key alone."""
    account: str = ""
    """In the fleet's ledger, where these are counted."""

    def request(
        self, number: int, prompt_tokens: int, max_output_tokens: int, keys: tuple[int, tuple[int, ...]]
    ) -> routing.Request:
        """What routing needs to know of a request that comes now; `keys` are of the prompt and its blocks."""
        now_s = monotonic()
        return routing.Request(
            id=number,
            prompt_tokens=prompt_tokens,
            max_output_tokens=max_output_tokens,
            arrived_s=now_s,
            tenant=self.tenant,
            tier=self.tier,
            deadline_s=now_s + self.deadline_s,
            key=keys[0],
            blocks=keys[1],
        )


ANYBODY = Sender()
"""Where nobody has to say who they are."""
