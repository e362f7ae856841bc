"""How is a figure written for a person? Rounded to what its interval carries, with its unit."""

import math
from dataclasses import dataclass

from compress.report import Interval

MOST_PLACES = 6
LAST_PLAIN_MINUTES_S = 7200


@dataclass(frozen=True, slots=True)
class Written:
    """A measured value in characters, with its 95 % interval."""

    value: str
    span: str

    def __str__(self) -> str:
        return f"{self.value} ({self.span})"


def number(value: float) -> str:
    """Three significant digits, but whole numbers as they are; thousands parted by commas."""
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return "unknown" if math.isnan(value) else "∞" if value > 0 else "-∞"
    if value and abs(value) < 1e-5:
        return f"{value:.1e}"
    return _rounded(value, _significant(value))


def measured(interval: Interval, unit: str = "") -> Written:
    """A value as exact as its interval is narrow, three digits at least, such as `19.6 (18.9 to 20.4)`."""
    return _written(interval, unit, max(_places(interval), _significant(interval.value)))


def share(interval: Interval) -> Written:
    """A share in percent."""
    return measured(_scaled(interval, 100), " %")


def points(difference: Interval) -> Written:
    """A difference of two shares in percentage points, with its sign."""
    scaled = _scaled(difference, 100)
    places = _telling_places(scaled, 0.0, 1)
    return Written(f"{scaled.value:+.{places}f} points", f"{scaled.low:+.{places}f} to {scaled.high:+.{places}f}")


def ratio(interval: Interval) -> Written:
    """A ratio such as `1.28x (1.22 to 1.35)`: no rounding hides that its interval leaves out 1."""
    if not all(map(math.isfinite, (interval.value, interval.low, interval.high))) or interval.high >= 100:
        written = measured(interval)
    else:
        written = _written(interval, "", _telling_places(interval, 1.0, 2))
    return Written(f"{written.value}x", written.span)


def times(value: float) -> str:
    """An exact ratio such as `0.61x`: it reads 1 only if it is 1."""
    places = 2
    while value != 1 and round(value, places) == 1 and places < MOST_PLACES:
        places += 1
    return f"{number(value) if value >= 100 else f'{value:.{places}f}'}x"


def size(count_bytes: float) -> str:
    """Bytes in decimal units, such as `269 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count_bytes < 999.5:
            return f"{number(count_bytes)} {unit}"
        count_bytes /= 1000
    return f"{number(count_bytes)} TB"


def duration(seconds: float) -> str:
    """Seconds, or minutes or hours where there are many."""
    if seconds < 600:
        return f"{number(seconds)} s"
    return f"{number(seconds / 60)} min" if seconds < LAST_PLAIN_MINUTES_S else f"{number(seconds / 3600)} h"


def many(count: float) -> str:
    """A large count in words, such as `2.30 million`."""
    for limit, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if count >= limit:
            return f"{number(count / limit)} {word}"
    return number(count)


def _written(interval: Interval, unit: str, places: int) -> Written:
    low, high = (_rounded(bound, places) for bound in (interval.low, interval.high))
    return Written(f"{_rounded(interval.value, places)}{unit}", f"{low} to {high}{unit}")


def _places(interval: Interval) -> int:
    """Decimal places (negative: tens, hundreds) at which the interval's width is 3 to 30 of the last digit."""
    width = interval.high - interval.low
    if not math.isfinite(width) or width <= 0:
        return _significant(interval.value)
    return min(1 + round(-math.log10(width)), MOST_PLACES)


def _telling_places(interval: Interval, neutral: float, least: int) -> int:
    """The fewest places, `least` or more, at which the rounded bounds lie where the true ones do: beside `neutral`."""
    for places in range(least, MOST_PLACES):
        low, high = round(interval.low, places), round(interval.high, places)
        if (neutral < low or neutral > high) == interval.excludes(neutral) and (low < high or interval.low == high):
            return places
    return MOST_PLACES


def _significant(value: float, digits: int = 3) -> int:
    if not value or not math.isfinite(value):
        return 0
    return digits - 1 - int(f"{value:.{digits - 1}e}".partition("e")[2])  # the exponent after rounding: 9.996 is 10.0


def _rounded(value: float, places: int) -> str:
    return f"{round(value, places):,.{max(places, 0)}f}" if math.isfinite(value) else number(value)


def _scaled(interval: Interval, factor: float) -> Interval:
    return Interval(value=interval.value * factor, low=interval.low * factor, high=interval.high * factor)
