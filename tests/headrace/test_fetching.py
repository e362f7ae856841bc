"""Fetching: what is whole, what is mended, what is refused, and what a user reads then."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.fetching import FetchError, cache, cache_folder, resolve, verify

BUILD_IN_A_CHILD = """
import os, sys
from pathlib import Path
from headrace.fetching import cache

def build(folder):
    with (folder / "weights").open("a") as file:
        file.write("half")
    print("half way", flush=True)
    if sys.stdin.readline() == "go on\\n":
        (folder / "config.json").write_text("{}")

print(cache.make("sample", build, print), flush=True)
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def start_building() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILD_IN_A_CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def say(child: subprocess.Popen[str], line: str) -> None:
    assert child.stdin is not None
    child.stdin.write(line + "\n")
    child.stdin.flush()


def hear(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def write_sample(folder: Path) -> None:
    (folder / "weights").write_bytes(bytes(1000))
    (folder / "deeper").mkdir()
    (folder / "deeper" / "config.json").write_text("{}")


def make_sample(notes: list | None = None, sound=cache.is_whole) -> Path:
    return cache.make("sample", write_sample, (notes if notes is not None else []).append, sound)


def checkpoint(folder: Path, **files: str) -> Path:
    folder.mkdir()
    whole = {"config.json": "{}", "model.safetensors": "weights", "tokenizer.json": "{}"}
    for name, text in (whole | files).items():
        if text:
            (folder / name).write_text(text)
    return folder


def test_the_cache_is_where_the_environment_says(own_cache: Path):
    assert cache_folder() == own_cache


def test_what_was_made_is_whole_and_not_made_again():
    folder = make_sample()
    assert cache.is_whole(folder)
    assert verify(folder) == []
    cache.make("sample", lambda _: pytest.fail("made again"), print)


def test_a_killed_build_leaves_no_checkpoint_and_the_next_finds_what_it_had():
    child = start_building()
    with child:
        assert hear(child) == "half way"
        child.send_signal(signal.SIGKILL)
    assert not cache.place("sample").exists()
    found = []

    def go_on(folder: Path) -> None:
        found.append((folder / "weights").read_text())

    assert cache.is_whole(cache.make("sample", go_on, print))
    assert found == ["half"]


def test_a_second_process_waits_says_so_and_takes_what_the_first_made():
    child = start_building()
    notes = []

    def hear_note(note: object) -> None:
        notes.append(note)
        say(child, "go on")

    with child:
        assert hear(child) == "half way"
        folder = cache.make("sample", lambda _: pytest.fail("made twice"), hear_note)
        assert hear(child) == str(folder)
    assert notes == ["sample: another process is fetching it; waiting for that one"]


def test_a_changed_byte_is_found_by_verify_named_and_mended():
    folder = make_sample()
    (folder / "weights").write_bytes(bytes(999) + b"x")
    assert cache.is_whole(folder), "sizes alone can't show it"
    assert verify(folder) == ["weights"]
    notes: list[str] = []
    assert make_sample(notes, lambda folder: not verify(folder)) == folder
    assert verify(folder) == []
    assert notes == ["sample: damaged in the cache (weights); making it again"]


@pytest.mark.parametrize("name", ["weights", "deeper/config.json"])
def test_a_missing_or_cut_file_is_noticed_without_reading_contents(name: str):
    folder = make_sample()
    (folder / name).write_bytes(b"")
    assert not cache.is_whole(folder)
    (folder / name).unlink()
    assert not cache.is_whole(folder)
    assert verify(folder) == [name]
    assert cache.is_whole(make_sample())


def test_a_broken_list_of_checksums_is_itself_named():
    folder = make_sample()
    (folder / cache.CHECKSUMS).write_text("{")
    assert not cache.is_whole(folder)
    assert verify(folder) == [cache.CHECKSUMS]


def test_resolving_what_is_cached_loads_nothing_heavy():
    cache.make("tiny", write_sample, print)
    heavy = "{'torch', 'transformers', 'rich', 'filelock', 'huggingface_hub', 'pydantic', 'ray'}"
    script = (
        "import sys; from headrace.fetching import resolve; print(resolve('tiny'));"
        f"print(sorted({heavy} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output.splitlines() == [str(cache.place("tiny")), "[]"]


def test_a_folder_is_taken_as_it_is(tmp_path: Path):
    folder = checkpoint(tmp_path / "mine")
    assert resolve(str(folder)) == folder


@pytest.mark.parametrize(
    ("files", "missing"),
    [
        ({"config.json": ""}, "config.json is missing"),
        ({"model.safetensors": ""}, "weights (*.safetensors) are missing"),
        ({"tokenizer.json": ""}, "a tokenizer"),
        ({"model.safetensors.index.json": "nonsense"}, "model.safetensors.index.json can't be read"),
        (
            {"model.safetensors.index.json": json.dumps({"weight_map": {"a": "one.safetensors"}})},
            "one.safetensors missing, named by model.safetensors.index.json",
        ),
    ],
)
def test_a_folder_that_lacks_something_is_refused_by_name(tmp_path: Path, files: dict[str, str], missing: str):
    folder = checkpoint(tmp_path / "mine", **files)
    with pytest.raises(FetchError) as refusal:
        resolve(str(folder))
    assert missing in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_misspelt_model_is_answered_with_the_nearest_name():
    with pytest.raises(FetchError, match=r"'smolm2' is no known model .* did you mean smollm2"):
        resolve("smolm2")


def test_a_cache_that_cannot_be_written_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / "file"))
    with pytest.raises(FetchError, match=r"tiny: Not a directory: .*file"):
        resolve("tiny")


def test_offline_is_said_before_any_waiting():
    script = "from headrace.fetching import resolve; resolve('owner/model')"
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert "owner/model: not in the cache, and HF_HUB_OFFLINE forbids to fetch it" in output.stderr
