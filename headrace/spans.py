"""How long is such as 90s, 30m, 1h or 2d?"""

import re

from headrace.failure import bad_input

UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
SPAN = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhd])")


def span_s(text: str, option: str = "--since") -> float:
    """In seconds. Raises Failure."""
    found = SPAN.fullmatch(text)
    if found is None or not float(found[1]):
        raise bad_input(f"{option}: should be like 90s, 30m, 1h or 2d, got {text!r}")
    return float(found[1]) * UNITS_S[found[2]]
