"""Records say truly which runs live, whatever happened to those who wrote them."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cluster import runs
from cluster.processes import Process, identify
from cluster.runs import NameTaken, Run


def make_run(name: str = "default", driver: Process | None = None) -> Run:
    return Run(
        name=name,
        id="abcd1234",
        driver=driver or Process(pid=2**22 + 1, started_ticks=1),
        url="http://127.0.0.1:8000",
        models=("tiny",),
        folder="/nowhere",
        started_at_s=1.5,
    )


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    run = replace(make_run(), keeper=Process(pid=7, started_ticks=9), dashboard_url="http://x", ready=True)
    runs.write(tmp_path, run)
    assert runs.read(tmp_path, "default") == run
    assert runs.read_all(tmp_path) == (run,)


def test_a_record_that_is_missing_or_damaged_is_none(tmp_path: Path) -> None:
    (tmp_path / "half.json").write_text('{"name": "half", "id"')
    (tmp_path / "other.json").write_text('{"name": "other"}')
    assert [runs.read(tmp_path, name) for name in ("none", "half", "other")] == [None, None, None]
    assert runs.read_all(tmp_path) == ()


def test_a_run_lives_as_long_as_its_driver() -> None:
    assert not runs.lives(make_run())
    assert runs.lives(make_run(driver=identify(os.getpid())))


def test_forgetting_spares_the_record_of_a_later_run_of_that_name(tmp_path: Path) -> None:
    earlier, later = make_run(), replace(make_run(), id="later")
    runs.write(tmp_path, later)
    runs.forget(tmp_path, earlier)
    assert runs.read(tmp_path, "default") == later
    runs.forget(tmp_path, later)
    assert runs.read(tmp_path, "default") is None


def test_a_name_is_held_by_one_at_a_time_and_free_again_after_a_kill(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from cluster import runs\n"
        "with runs.claim(Path(sys.argv[1]), 'default'): print('held', flush=True); time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(NameTaken), runs.claim(tmp_path, "default"):
        pass
    with runs.claim(tmp_path, "second"):
        pass
    holder.kill()
    holder.communicate()
    with runs.claim(tmp_path, "default"):
        pass
