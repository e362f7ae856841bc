"""What can one check of the doctor say?"""

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    """Serving can't work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor."""

    level: Level
    subject: str
    text: str
    way_out: str = ""
