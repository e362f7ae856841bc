"""Is every system of a comparison asked alike, and is a turn that does not count tried again?"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks import serving_record
from benchmarks.cpu_time import Part
from benchmarks.load_generator import Load
from benchmarks.servers import Server
from benchmarks.serving_record import OtherSettings, Record
from benchmarks.serving_turns import ATTEMPTS, OUTPUT_TOKENS, PROMPT_TOKENS, Bench, Cell, Requests, Turn

CELL = Cell(model="tiny", api="completions", streams=2)
NAMES = ("vllm", "ray-llm", "ray-llm-direct", "headrace")


@dataclass
class Asker:
    """A load generator without a server: `events` says how many events an answer has, by port."""

    events: Callable[[int], int] = lambda port: OUTPUT_TOKENS
    asked: list[tuple[int, str]] = field(default_factory=list)

    def run(self, load: Load, result: Path) -> dict[str, Any]:
        port = int(load.url.removesuffix("/v1").rpartition(":")[2])
        self.asked.append((port, load.prompts.read_text()))
        return {
            "input_lens": [PROMPT_TOKENS] * load.requests,
            "output_lens": [OUTPUT_TOKENS] * load.requests,
            "errors": [""] * load.requests,
            "duration": 1.0,
            "ttfts": [0.1] * load.requests,
            "itls": [[0.01] * (self.events(port) - 1)] * load.requests,
        }

    def cpu_s(self) -> float:
        return 0.0


def bench(asker: Asker, folder: Path) -> Bench:
    """All systems are this very process."""
    here = psutil.Process()
    servers = [Server(name=name, port=i, parts=lambda: iter([(here, Part.ROUTER)])) for i, name in enumerate(NAMES)]
    return Bench(
        model="tiny",
        tokenizer=folder,
        servers=tuple(servers),
        generator=asker,
        texts=lambda *, chat, count, seed: [f"{seed} {i}" for i in range(count)],
        requests=Requests(at_least=3, per_stream=2),
        scratch=folder,
        settle_s=0,
    )


def test_in_a_round_each_system_gets_the_same_prompts_once(tmp_path: Path) -> None:
    asker = Asker()
    turns = list(bench(asker, tmp_path).round(1, CELL))
    assert sorted(turn.system for turn in turns) == sorted(NAMES)
    assert not any(turn.problem for turn in turns)
    assert len({text for _, text in asker.asked}) == 1
    assert asker.asked[0][1].count("\n") == 4


def test_rounds_differ_in_prompts_and_in_order_and_come_again_alike(tmp_path: Path) -> None:
    told = []
    for number in (*range(1, 9), *range(1, 9)):
        asker = Asker()
        order = tuple(turn.system for turn in bench(asker, tmp_path).round(number, CELL))
        told.append((order, asker.asked))
    assert told[:8] == told[8:]
    assert len({asked[0][1] for _, asked in told[:8]}) == 8
    assert len({order[0] for order, _ in told[:8]}) > 1


def test_a_system_that_joins_tokens_is_asked_again_with_prompts_that_it_has_not_seen(tmp_path: Path) -> None:
    asker = Asker(events=lambda port: OUTPUT_TOKENS if port else OUTPUT_TOKENS // 2)
    turns = list(bench(asker, tmp_path).round(1, CELL))
    refused = [turn for turn in turns if turn.problem]
    assert [turn.system for turn in refused] == ["vllm"] * ATTEMPTS
    assert refused[0].problem == "0.500 events per token"
    assert len({text for port, text in asker.asked if port == 0}) == ATTEMPTS
    assert len(turns) == ATTEMPTS + len(NAMES) - 1


def test_a_record_is_added_to_where_it_ended(tmp_path: Path) -> None:
    path, settings = tmp_path / "deep" / "record.json", {"prompt_tokens": 128}
    first = Record(settings=settings)
    first.add(list(bench(Asker(), tmp_path).round(1, CELL)), path)
    again = serving_record.read(path, settings)
    assert (again.turns, again.rounds("tiny"), again.rounds("smollm2")) == (first.turns, 1, 0)
    again.add(list(bench(Asker(), tmp_path).round(2, CELL)), path)
    assert serving_record.read(path, settings).rounds("tiny") == 2
    assert [row["rounds"] for row in json.loads(path.read_text())["summary"]] == [2] * len(NAMES)
    assert os.listdir(path.parent) == ["record.json"]


def test_rounds_with_other_settings_are_not_added_to(tmp_path: Path) -> None:
    Record(settings={"prompt_tokens": 64}).write(tmp_path / "record.json")
    with pytest.raises(OtherSettings, match=r"record\.json: measured with another prompt_tokens"):
        serving_record.read(tmp_path / "record.json", {"prompt_tokens": 128})


def test_a_turn_without_figures_survives_the_file(tmp_path: Path) -> None:
    turn = Turn(
        cell=CELL,
        round=1,
        system="ray-llm",
        seen=None,
        problem="12 of 12 requests failed",
        window_s=1.0,
        cpu_s={"router": 0.1},
        idle_systems_cores=0.0,
        generator_cores=0.0,
        others_cores=0.0,
        load_average=0.0,
    )
    Record(settings={}).add([turn], tmp_path / "record.json")
    assert serving_record.read(tmp_path / "record.json", {}).turns == [turn]
