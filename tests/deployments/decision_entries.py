"""What do tests keep in a store? Decisions as the journal tells them."""

from autoscaling import Entry


def entry(
    at_s: float, wanted: int = 1, *, running: int = 1, starting: int = 0, model: str = "tiny", advice: bool = False
) -> Entry:
    return Entry(
        deployment=f"engine-{model}",
        at_s=at_s,
        wanted=wanted,
        running=running,
        starting=starting,
        advice=advice,
        reason=f"{running} -> {wanted} replicas; 4 requests in engines, 2 queued; their time asks for {wanted}",
        numbers={"demand": {"work_share": 0.5 * wanted, "requests": 6.0}, "wish": wanted},
        one_fewer={"replicas": wanted - 1, "token_s": 0.04} if wanted > 1 else None,
    )
