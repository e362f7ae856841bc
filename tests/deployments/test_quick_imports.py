"""Does nothing look for garbage while an engine's processes import vLLM, and do tokenizers work without torch?"""

import gc
import multiprocessing
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

from deployments.quick_imports import begun_uncollected, collect_again, uncollected
from deployments.render import Renderer

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


TOKENIZES = """
import sys
from concurrent.futures import ThreadPoolExecutor
from deployments.quick_imports import torch_unseen
from deployments.render import Renderer

with torch_unseen():
    renderer = Renderer(sys.argv[1], ThreadPoolExecutor(max_workers=1))
assert not any(name.partition(".")[0] == "torch" for name in sys.modules)
print(renderer.text_ids(sys.argv[2], True))
import torch
"""


def test_texts_are_tokenized_the_same_without_torch_which_can_be_imported_later(tokenizer_folder: Path) -> None:
    text = "Grüße 🚰 of all"
    command = [sys.executable, "-c", TOKENIZES, str(tokenizer_folder), text]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    with ThreadPoolExecutor(max_workers=1) as threads:
        assert (done.returncode, done.stderr, done.stdout.strip()) == (
            0,
            "",
            str(Renderer(str(tokenizer_folder), threads).text_ids(text, True)),
        )
