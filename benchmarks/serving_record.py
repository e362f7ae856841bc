"""Where is a serving comparison kept between its sittings? In the JSON file that it is reported in."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.load_generator import Seen
from benchmarks.serving_report import summarise
from benchmarks.serving_turns import Cell, Turn


class OtherSettings(RuntimeError):
    """The file's rounds were measured otherwise, and can't be added to."""


@dataclass(kw_only=True, slots=True)
class Record:
    """All that was seen."""

    settings: dict[str, Any]
    """What must be alike for rounds to be compared."""
    sittings: list[dict[str, Any]] = field(default_factory=list)
    """Machine, versions and systems of each run of the program."""
    turns: list[Turn] = field(default_factory=list)

    def rounds(self, model: str) -> int:
        """Rounds of this model so far."""
        return max((turn.round for turn in self.turns if turn.cell.model == model), default=0)

    def add(self, turns: Sequence[Turn], path: Path) -> None:
        """Adds what all systems did in one cell of a round, and writes the file."""
        self.turns += turns
        self.write(path)

    def write(self, path: Path) -> None:
        """Writes the file in one step: a reader sees the old one or the new one."""
        said = {
            **{"settings": self.settings, "sittings": self.sittings, "summary": summarise(self.turns)},
            "turns": [asdict(turn) for turn in self.turns],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_suffix(".new")
        aside.write_text(json.dumps(said, indent=1) + "\n")
        os.replace(aside, path)


def read(path: Path, settings: dict[str, Any]) -> Record:
    """The record in a file, to be added to. Raises OtherSettings."""
    said = json.loads(path.read_text())
    differing = [name for name in settings if said.get("settings", {}).get(name) != settings[name]]
    if differing:
        raise OtherSettings(
            f"{path}: measured with another {differing[0]}: leave --resume out, or name another --output"
        )
    return Record(settings=settings, sittings=said["sittings"], turns=[_turn(turn) for turn in said["turns"]])


def _turn(said: dict[str, Any]) -> Turn:
    seen = Seen(**said["seen"]) if said["seen"] else None
    return Turn(**said | {"cell": Cell(**said["cell"]), "seen": seen})
