"""Does a router that goes on with a batch tell of its pace what it saw itself?"""

import pytest

from deployments.batches import stored_batches
from deployments.batches.batch import Batch, Outcome, Progress
from deployments.batches.keeper import BatchKeeper
from deployments.late_store import LateStore
from deployments.store import Store


@pytest.mark.anyio
async def test_lines_of_another_router_are_none_of_this_one_s_pace(opened: Store, url: str) -> None:
    told = {"tenant": "alpha", "key": "k", "models": None, "endpoint": "/v1/completions", "input_file": "file-1"}
    batch = Batch(id="batch_1", about=None, files_kept_s=None, created_s=1.0, expires_s=1e12, **told)
    stored_batches.add(opened, batch, most_open=1)
    stored_batches.claim(opened, "one", 60.0)
    done = [Outcome(line, True, b"{}") for line in range(1, 101)]
    stored_batches.keep(opened, "batch_1", "one", -1.0, done, Progress(total=200, completed=100))
    mine, store = stored_batches.claim(opened, "two", 60.0), LateStore(url)
    assert mine is not None
    keeper = BatchKeeper(mine, store, "two", 60.0, print)
    await keeper.keep_all()  # the lease is renewed while the file is read
    await keeper.recall()
    await keeper.keep_all()
    seen = [stored_batches.one(opened, "alpha", "batch_1")]
    keeper.add(Outcome(101, True, b"{}"), (1, 0, 1))
    await keeper.keep_all()
    seen.append(stored_batches.one(opened, "alpha", "batch_1"))
    store.close()
    nothing, something = (one and one.progress for one in seen)
    assert nothing == Progress(total=200, completed=100)
    assert something is not None
    assert something.lines_per_s is not None
    assert something.completed == 101
