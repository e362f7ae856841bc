"""A result is whole or not there, whenever its process dies."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress import kept

DIES = """
import os, signal, sys
from pathlib import Path
from compress.kept import once

def build(folder):
    (folder / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

once(Path(sys.argv[1]), build)
"""


def write(folder: Path) -> None:
    (folder / "whole").write_text("whole")


def test_what_is_finished_is_not_built_again(tmp_path: Path) -> None:
    place = kept.once(tmp_path / "result", write)

    def refuse(folder: Path) -> None:
        raise AssertionError("built twice")

    assert kept.once(place, refuse) == place


def test_a_build_that_fails_leaves_no_result_and_the_next_one_starts_empty(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError):
        kept.once(tmp_path / "result", fail)
    assert not (tmp_path / "result").exists()
    assert [path.name for path in kept.once(tmp_path / "result", write).iterdir()] == ["whole"]


def test_a_killed_build_leaves_no_result(tmp_path: Path) -> None:
    place = tmp_path / "result"
    died = subprocess.run([sys.executable, "-c", DIES, str(place)], check=False)
    assert died.returncode < 0
    assert not place.exists()
    assert [path.name for path in kept.once(place, write).iterdir()] == ["whole"]


def test_those_who_want_the_same_get_one_build(tmp_path: Path) -> None:
    builds: list[Path] = []

    def count(folder: Path) -> None:
        builds.append(folder)
        write(folder)

    with ThreadPoolExecutor(4) as threads:
        places = list(threads.map(lambda _: kept.once(tmp_path / "result", count), range(8)))
    assert len(builds) == 1
    assert set(places) == {tmp_path / "result"}


@given(st.dictionaries(st.text(), st.integers()), st.dictionaries(st.text(), st.integers()))
def test_names_differ_when_an_ingredient_does(one: dict[str, int], other: dict[str, int]) -> None:
    assert (kept.name("step", one) == kept.name("step", other)) == (one == other)


def test_a_checkpoint_s_hash_changes_with_one_byte_of_weights_or_config(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    first = kept.checkpoint_hash(tmp_path)
    (tmp_path / "notes.txt").write_text("beside")
    assert kept.checkpoint_hash(tmp_path) == first
    (tmp_path / "model.safetensors").write_bytes(b"weightz")
    second = kept.checkpoint_hash(tmp_path)
    (tmp_path / "config.json").write_text("[]")
    assert len({first, second, kept.checkpoint_hash(tmp_path)}) == 3
