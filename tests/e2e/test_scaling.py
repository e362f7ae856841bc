"""Is what Serve's controller decides of real engines told, by `headrace scaling` (also after the run) and metrics?"""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

import httpx
import pytest

from tests.e2e.typed import DetachedFleet, detached_fleet, headrace

pytestmark = [pytest.mark.slow, pytest.mark.prove, pytest.mark.timeout(420)]

PATIENCE_S = 120.0
FLEET = """
models:
  - name: tiny
    source: tiny
    engine: {dtype: float32, max_model_len: 256, max_num_seqs: 4, kv_cache_memory_bytes: 67108864}
    replicas: {min: 1, max: 2}
router: {port: {port}}
scaling: {hold_s: 10, advise: ADVISE, ongoing_requests: 1000}
"""


@contextmanager
def serving(folder: Path, *, advise: bool) -> Iterator[DetachedFleet]:
    fleet = detached_fleet(folder, FLEET.replace("ADVISE", str(advise).lower()))
    fleet.start()
    try:
        yield fleet
    finally:
        fleet.stop()
    assert fleet.processes() == []


@contextmanager
def load(fleet: DetachedFleet) -> Iterator[None]:
    """Twelve at once, for an engine that has four slots."""
    enough = Event()
    body = {"model": "tiny", "prompt": "A class is", "max_tokens": 120, "ignore_eos": True}

    def one() -> None:
        while not enough.is_set():
            httpx.post(f"{fleet.url}/v1/completions", json=body, timeout=PATIENCE_S).raise_for_status()

    with ThreadPoolExecutor(12) as threads:
        asked = [threads.submit(one) for _ in range(12)]
        try:
            yield
        finally:
            enough.set()
        for each in asked:
            each.result()


def until(fleet: DetachedFleet, condition: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    end_s = monotonic() + PATIENCE_S
    while not condition(told := decisions(fleet)):
        assert monotonic() < end_s, told
    return told


def decisions(fleet: DetachedFleet) -> list[dict[str, Any]]:
    typed = headrace("scaling", "--json", env=fleet.env, timeout_s=60)
    return json.loads(typed.stdout)["decisions"] if typed.returncode == 0 else []


def test_load_s_decisions_are_told_with_their_reasons_and_kept_after_the_run(tmp_path: Path) -> None:
    with serving(tmp_path, advise=False) as fleet:
        with load(fleet):
            told = until(fleet, lambda told: any(one["running"] == 2 for one in told))
        first = next(one for one in told if one["wanted"] == 2)
        assert first["reason"].startswith("1 -> 2 replicas; ")
        assert first["one_fewer"]["replicas"] == 1
        assert not first["advice"]
        metrics = httpx.get(f"{fleet.url}/metrics").text
        assert 'headrace_wanted_replicas{model="tiny"} 2.0' in metrics
        assert 'headrace_scale_decisions_total{direction="up",model="tiny"} 1.0' in metrics
        until(fleet, lambda told: told[-1]["wanted"] == told[-1]["running"] == 1)
    shown = headrace("scaling", "tiny", "--plot", str(tmp_path / "page.html"), env=fleet.env, timeout_s=60)
    assert shown.returncode == 0
    assert "1 -> 2 replicas" in " ".join(shown.stdout.split())
    assert "2 -&gt; 1 replicas" in (tmp_path / "page.html").read_text()


def test_advice_is_told_while_serve_s_own_law_keeps_the_replicas(tmp_path: Path) -> None:
    with serving(tmp_path, advise=True) as fleet, load(fleet):
        told = until(fleet, lambda told: any(one["wanted"] == 2 for one in told))
        more = until(fleet, lambda now: now[-1]["at_s"] > told[-1]["at_s"])
    assert all(one["advice"] and one["running"] + one["starting"] == 1 for one in more)
    assert more[-1]["running"] == 1
    shown = headrace("scaling", env=fleet.env, timeout_s=60)
    assert "2 (advice)" in shown.stdout
