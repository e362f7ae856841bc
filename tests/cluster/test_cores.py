"""How engine replicas of one machine share its cores."""

import subprocess
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cluster.cores import binding, claim, release

HOLD = """
import sys
from pathlib import Path
from cluster.cores import claim
held = claim(2, folder=Path(sys.argv[1]), cores=[0, 1, 2, 3])
print(*held.cores, flush=True)
sys.stdin.read()
"""


def test_two_replicas_get_different_cores_and_a_third_shares(tmp_path: Path) -> None:
    claims = [claim(2, folder=tmp_path, cores=range(4)) for _ in range(3)]
    assert [held.cores for held in claims] == [(0, 1), (2, 3), (0, 1)]
    release(claims[1])
    assert claim(2, folder=tmp_path, cores=range(4)).cores == (2, 3)


def test_a_machine_with_fewer_cores_gives_all_it_has(tmp_path: Path) -> None:
    assert claim(8, folder=tmp_path, cores=[3, 5]).cores == (3, 5)


def test_the_claim_of_a_killed_process_is_free_again(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline().split() == ["0", "1"]
        assert claim(2, folder=tmp_path, cores=range(4)).cores == (2, 3)
        holder.kill()
    assert claim(2, folder=tmp_path, cores=range(4)).cores == (0, 1)


@given(st.lists(st.integers(0, 200), min_size=1, max_size=32, unique=True), st.integers(1, 8))
def test_every_rank_gets_as_many_cores_and_shares_only_when_there_are_too_few(cores: list[int], ranks: int) -> None:
    groups = [group.split(",") for group in binding(cores, ranks).split("|")]
    assert len(groups) == ranks
    assert len({len(group) for group in groups}) == 1
    used = [int(core) for group in groups for core in group]
    assert set(used) <= set(cores)
    if len(cores) >= ranks:
        assert len(set(used)) == len(used)
