"""Are a user's mistakes on the benchmark's command line told in one line, before anything starts?"""

import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import psutil
import pytest

from benchmarks import serving_path
from benchmarks.cpu_time import Part
from benchmarks.ray_llm import schema
from benchmarks.servers import ENGINE, BenchmarkFailed, Server


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--streams", "1,x"], "--streams: should be whole numbers from 1, by commas, got '1,x'"),
        (["--streams", "0"], "--streams: should be whole numbers from 1, by commas, got '0'"),
        (["--systems", "vllm,sglang"], "should be of vllm, ray-llm, ray-llm-direct, headrace, got 'sglang'"),
        (["--rounds", "0"], "--rounds"),
        (["--models", "no-such-model"], "no-such-model"),
    ],
)
def test_a_mistake_ends_with_a_line_that_says_what_is_allowed(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["serving_path", *arguments])
    with pytest.raises(SystemExit) as ended:
        serving_path.main()
    told = capsys.readouterr().err
    assert ended.value.code in (1, 2)
    assert said in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("direct", [False, True])
def test_rays_layer_takes_the_configuration_that_it_is_given(direct: bool, tmp_path) -> None:
    from ray.serve.schema import ServeDeploySchema

    said = schema(tmp_path, 9000, ENGINE, direct=direct)
    application = ServeDeploySchema.model_validate(said).applications[0]
    (model,) = application.args["llm_configs"]
    assert model["engine_kwargs"] == ENGINE | {"distributed_executor_backend": "mp"}
    assert ("experimental_configs" in model) is direct


class Bound(psutil.Process):
    """An engine core that is bound to core 3."""

    def environ(self) -> dict[str, str]:
        return {"VLLM_CPU_OMP_THREADS_BIND": "3"}


@contextmanager
def system(name: str, ended: list[str], reason: str = "") -> Iterator[Server]:
    """One that starts, or says why it does not."""
    if reason:
        raise BenchmarkFailed(reason)
    yield Server(name=name, port=1, parts=lambda: iter([(Bound(), Part.CORE)]))
    ended.append(name)


Starts = dict[str, str]
"""Systems, each with the reason why it does not start; none if it does."""


def replace(monkeypatch: pytest.MonkeyPatch, starts: Starts) -> tuple[list[str], list[tuple[str, str]]]:
    """Systems that start at once: which have ended, and on which core each was started, in order."""
    ended: list[str] = []
    cores: list[tuple[str, str]] = []

    def start(name: str, core: str) -> AbstractContextManager[Server]:
        cores.append((name, core))
        return system(name, ended, starts[name])

    peers = {name: lambda _, core, engine, name=name: start(name, core) for name in starts if name != "headrace"}
    monkeypatch.setattr(serving_path, "PEERS", peers)
    monkeypatch.setattr(serving_path, "headrace_fleet", lambda _, engine: start("headrace", "its own"))
    return ended, cores


def test_a_system_that_does_not_start_is_told_of_and_the_others_are_measured_and_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    starts = {"vllm": "", "ray-llm-direct": "no HAProxy here", "headrace": ""}
    ended, cores = replace(monkeypatch, starts)
    with serving_path.started(Path(), list(starts), ENGINE) as (servers, missing):
        assert [server.name for server in servers] == ["headrace", "vllm"]
        assert missing == {"ray-llm-direct": "no HAProxy here"}
        assert ended == []
    assert ended == ["vllm", "headrace"]
    assert cores == [("headrace", "its own"), ("vllm", "3"), ("ray-llm-direct", "3")]


def test_without_vllms_own_server_there_is_nothing_to_compare_with(monkeypatch: pytest.MonkeyPatch) -> None:
    ended, _ = replace(monkeypatch, {"headrace": "", "vllm": "no memory"})
    with pytest.raises(BenchmarkFailed, match="no memory"), serving_path.started(Path(), ["headrace", "vllm"], ENGINE):
        pass
    assert ended == ["headrace"]


def test_nothing_is_started_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    _, cores = replace(monkeypatch, {"headrace": "", "vllm": ""})
    monkeypatch.setattr(serving_path, "SYSTEM_BYTES", 1 << 60)
    said = "headrace may take 1073741824: measure fewer --systems at once"
    with pytest.raises(BenchmarkFailed, match=said), serving_path.started(Path(), ["vllm", "headrace"], ENGINE):
        pass
    assert cores == []


def test_who_asks_to_end_waits_until_all_systems_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []

    @contextmanager
    def slow(*_: object) -> Iterator[Server]:
        with system("vllm", ended) as server:
            try:
                yield server
            finally:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(serving_path, "PEERS", {"vllm": slow})
    with serving_path.started(Path(), ["vllm"], ENGINE):
        pass
    assert ended == ["vllm"]
