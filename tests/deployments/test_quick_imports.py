"""Does nothing look for garbage while an engine's processes import vLLM, and is it looked for later?"""

import gc
import multiprocessing
import sys
from multiprocessing.connection import Connection

from deployments.quick_imports import begun_uncollected, collect_again, uncollected

SPAWN = multiprocessing.get_context("spawn")
WAIT_S = 30.0


def tell(answers: Connection, generations: int) -> None:
    """What a process finds when it begins, and what its own child finds."""
    answers.send((gc.isenabled(), "tests.conftest" in sys.modules))
    collect_again()
    answers.send((gc.isenabled(), gc.get_freeze_count() > 0))
    if generations > 1:
        child = SPAWN.Process(target=tell, args=(answers, generations - 1))
        child.start()
        child.join(WAIT_S)


def test_processes_spawned_and_their_children_begin_without_collecting() -> None:
    here, there = SPAWN.Pipe()
    main = sys.modules["__main__"]
    with begun_uncollected():
        child = SPAWN.Process(target=tell, args=(there, 2))
        child.start()
    assert sys.modules["__main__"] is main
    child.join(WAIT_S)
    for _generation in range(2):
        assert here.poll(WAIT_S)
        assert here.recv() == (False, False)
        assert here.recv() == (True, True)


def test_garbage_is_looked_for_again_whatever_happens() -> None:
    try:
        with uncollected():
            assert not gc.isenabled()
            raise KeyError
    except KeyError:
        assert gc.isenabled()
    gc.unfreeze()
