"""The whole tour, as a newcomer types it: cut off while it deploys, begun again to serve on, and nothing is left."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import psutil
import pytest

from cluster.processes import first_gone, identify
from compress.report import load
from headrace import tour_prompts
from headrace.fetching import cache_folder
from tests.e2e.typed import free_port

pytestmark = [pytest.mark.slow, pytest.mark.prove, pytest.mark.timeout(1800)]

MOST_S = 600.0
"""A tour's own promise, on two cores."""
INTERRUPTED = 130


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The models that are here already, and everything else in a folder of its own."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "models").symlink_to(cache_folder() / "models")
    own = {"HEADRACE_CACHE": str(tmp_path / "cache"), "HEADRACE_STATE": str(tmp_path / "state")}
    yield os.environ | own
    assert _processes(own) == []


def test_it_shows_the_figures_of_each_step_and_leaves_nothing(
    tmp_path: Path, env: dict[str, str], record_property: Callable[[str, object], None]
) -> None:
    words = ("tour", "--out", str(tmp_path / "tour"), "--port", str(free_port()))
    begun_s = monotonic()
    assert _interrupted_while_it_deploys(words, env, tmp_path / "output") == INTERRUPTED
    assert _processes(env) == []
    first_s = monotonic() - begun_s
    said = _whole_until_interrupted((*words, "--keep"), env, tmp_path / "again")
    figures = json.loads((tmp_path / "tour" / "tour.json").read_text())
    assert list(figures) == ["plan", "compress", "serve", "prompts", "simulate"]
    _check_plan(figures["plan"])
    _check_compress(figures["compress"], tmp_path / "tour" / "artefacts" / "smollm2-tour")
    _check_answers(figures)
    _check_simulation(figures["simulate"])
    assert "measuring speed" in (tmp_path / "output").read_text()
    assert "measuring speed" not in said, "it was finished already when the first tour was cut off"
    assert all(title in said for title in ("1 of 5.", "2 of 5.", "3 of 5.", "4 of 5.", "5 of 5."))
    assert list((tmp_path / "state" / "runs").glob("*.json")) == []
    for step, found in figures.items():
        record_property(step, json.dumps(found))
    record_property("seconds until it was cut off", round(first_s))
    record_property("seconds of the second tour", round(monotonic() - begun_s - first_s))


def _interrupted_while_it_deploys(words: tuple[str, ...], env: dict[str, str], output: Path) -> int:
    run = _started(words, env, output)
    _wait_for("Deploying ...", run, output)
    run.send_signal(signal.SIGINT)
    return run.wait(timeout=120)


def _whole_until_interrupted(words: tuple[str, ...], env: dict[str, str], output: Path) -> str:
    """All steps, then an answer of the fleet that serves on, then Ctrl-C; what was said."""
    run = _started(words, env, output)
    _wait_for("until Ctrl-C", run, output)
    url = f"http://127.0.0.1:{words[words.index('--port') + 1]}"
    prompt = tour_prompts.one(url, "smollm2", "What is a river?", {}, 8, 0.0)
    assert prompt.answer.tokens > 0
    run.send_signal(signal.SIGINT)
    assert run.wait(timeout=120) == 0, output.read_text()
    return output.read_text()


def _started(words: tuple[str, ...], env: dict[str, str], output: Path) -> subprocess.Popen[bytes]:
    with output.open("wb") as file:
        return subprocess.Popen([sys.executable, "-m", "headrace", *words], env=env, stdout=file, stderr=file)


def _wait_for(words: str, run: subprocess.Popen[bytes], output: Path) -> None:
    process, deadline_s = identify(run.pid), monotonic() + MOST_S
    while words not in output.read_text():
        assert process is not None
        assert not first_gone((process,), 0.5), output.read_text()
        assert monotonic() < deadline_s, output.read_text()


def _check_plan(found: dict) -> None:
    assert {name.partition(", ")[0] for name in found if name != "took_s"} == {"cpu", "l4"}
    assert all(one["weights_bytes"] > 0 for name, one in found.items() if name != "took_s")


def _check_compress(found: dict, artefact: Path) -> None:
    report = load(artefact)
    assert found["bytes_ratio"] == report.size.bytes / report.size.parent_bytes < 1
    assert found["perplexity_ratio"]["low"] <= found["perplexity_ratio"]["value"] <= found["perplexity_ratio"]["high"]
    assert set(found["speed_ratio"]) == {"prefill", "decode", "first_token"}
    assert report.gate.kl <= report.gate.kl_limit
    assert (artefact / "report.html").exists()


def _check_answers(figures: dict) -> None:
    scheme = figures["compress"]["scheme"]
    plainly, at_cost, of_quality = figures["serve"]["answered_by"].values()
    assert (plainly, at_cost) == ("smollm2", scheme)
    if figures["compress"]["perplexity_ratio"]["value"] > 1:
        assert of_quality == "smollm2"
    prompts = figures["prompts"]
    assert sum(one["requests"] for one in prompts["variants"].values()) == prompts["all"]["requests"] == 24
    assert set(prompts["variants"]) == {"smollm2", scheme}
    assert prompts["variants"][scheme]["requests"] >= 12
    assert all(one["tokens_per_s"] > 0 and one["ttft_p50_s"] > 0 for one in prompts["variants"].values())
    assert sum(one["requests"] for one in prompts["why"]) == 24 + 3


def _check_simulation(found: dict) -> None:
    with_it, without = found["headrace"], found["alone"]
    assert with_it["requests"] == without["requests"] > 100
    assert with_it["in_time_per_s"] > 1.2 * without["in_time_per_s"]
    assert with_it["device_hours"] > without["device_hours"]
    assert sum(with_it["answered"].values()) == with_it["requests"]


def _processes(env: dict[str, str]) -> list[psutil.Process]:
    """Those of this story that live."""
    return [process for process in psutil.process_iter() if _is_of(process, env)]


def _is_of(process: psutil.Process, env: dict[str, str]) -> bool:
    try:
        mine = process.environ().get("HEADRACE_STATE") == env["HEADRACE_STATE"]
        return mine and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
