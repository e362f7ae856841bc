"""Does the ledger hear of a router that is gone what that had spent, and once?"""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from deployments import spent_file
from deployments.spent_file import SpentFile, end_left
from routing import Spent

pytestmark = pytest.mark.anyio

AT_S = 5.0
WRITER = """
import sys
from pathlib import Path
from deployments.spent_file import SpentFile
from routing import Spent
file = SpentFile(Path(sys.argv[1]), print)
for number in range(1, 101):
    file.add("alpha", Spent(5.0, {"tokens/total": float(number)}))
    file.add(f"key {number % 7}", Spent(5.0, {"gpu_s/day": number / 2}))
print(file.router, flush=True)
sys.stdin.read()
"""


class Ears:
    """Of a ledger, which may fail."""

    def __init__(self) -> None:
        self.told, self.fails = dict[str, dict[str, dict[str, float]]](), False

    async def end(self, router: str, spent: Mapping[str, Spent]) -> None:
        if self.fails:
            raise ConnectionError("gone")
        self.told[router] = {owner: dict(each.amounts) for owner, each in spent.items()}


@pytest.mark.parametrize("full_lines", [spent_file.FULL_LINES, 30], ids=["one file", "written anew"])
async def test_of_a_router_that_is_killed_the_last_of_each_account_is_told(tmp_path: Path, full_lines: int) -> None:
    ears = Ears()
    writer = WRITER.replace("file = ", f"import deployments.spent_file as s; s.FULL_LINES = {full_lines}; file = ")
    with subprocess.Popen(
        [sys.executable, "-c", writer, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        router = process.stdout.readline().strip()
        await end_left(tmp_path, ears.end)
        assert ears.told == {}, "it lives"
        process.send_signal(signal.SIGKILL)
    ears.fails = True
    with pytest.raises(ConnectionError):
        await end_left(tmp_path, ears.end)
    ears.fails = False
    await end_left(tmp_path, ears.end)
    keys = {f"key {number % 7}": {"gpu_s/day": number / 2} for number in range(94, 101)}
    assert ears.told == {router: {"alpha": {"tokens/total": 100.0}} | keys}
    assert list(tmp_path.iterdir()) == []


async def test_a_router_that_ends_is_told_by_itself_or_by_the_next(tmp_path: Path) -> None:
    ears, said = Ears(), list[str]()
    one, other, idle = (SpentFile(tmp_path, said.append) for _ in range(3))
    await idle.close(ears.end)
    assert (ears.told, len(list(tmp_path.iterdir()))) == ({}, 2), "who borrowed nothing"
    one.add("alpha", Spent(AT_S, {"tokens/total": 5.0}))
    other.add("alpha", Spent(AT_S, {"tokens/total": 0.0}))
    await one.close(ears.end)
    assert ears.told == {one.router: {"alpha": {"tokens/total": 5.0}}}
    ears.fails = True
    await other.close(ears.end)
    assert len(said) == 1
    assert "did not spend waits" in said[0]
    ears.fails = False
    await end_left(tmp_path, ears.end)
    assert ears.told[other.router] == {"alpha": {"tokens/total": 0.0}}


async def test_a_line_that_was_cut_off_costs_itself_alone(tmp_path: Path) -> None:
    ears, file = Ears(), SpentFile(tmp_path, print)
    file.add("alpha", Spent(AT_S, {"tokens/total": 5.0}))
    with next(tmp_path.glob("*.spent")).open("ab") as end:
        end.write(b'\n["alpha",{"tok')
    file.add("beta", Spent(AT_S, {"tokens/total": 7.0}))
    await file.close(ears.end)
    assert ears.told[file.router] == {"alpha": {"tokens/total": 5.0}, "beta": {"tokens/total": 7.0}}


async def test_what_a_full_disk_did_not_take_is_written_when_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spent_file, "EVERY_S", 0.001)
    said, ears = list[str](), Ears()
    file = SpentFile(tmp_path, said.append)
    path = next(tmp_path.iterdir())

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    open_files = len(list(Path("/proc/self/fd").iterdir()))
    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        patched.setattr(os, "fdopen", full)
        for spent in range(100):
            file.add(f"key {spent % 3}", Spent(AT_S, {"tokens/total": float(spent)}))
    assert len(list(Path("/proc/self/fd").iterdir())) == open_files
    assert len(said) == 1
    assert "budgets may be exceeded" in said[0]
    looking = asyncio.ensure_future(file.go_on(ears.end))
    async with asyncio.timeout(30):
        while len(path.read_bytes().split()) < 3:
            await asyncio.sleep(0)
    looking.cancel()
    await file.close(ears.end)
    assert ears.told[file.router] == {f"key {spent % 3}": {"tokens/total": float(spent)} for spent in (97, 98, 99)}


async def test_the_same_is_said_again_on_another_day_alone(tmp_path: Path) -> None:
    file = SpentFile(tmp_path, print)
    for at_s in (AT_S, AT_S + 1.0, AT_S + 2.0, AT_S + 86400.0):
        file.add("alpha", Spent(at_s, {"tokens/total": 5.0}))
    assert len(next(tmp_path.iterdir()).read_bytes().split()) == 2
    await file.close(Ears().end)
