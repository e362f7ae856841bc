"""How does Ray do what several processes share? Ray Data asks the source's engines, Ray Train trains.

Both are called from a stage that takes no core itself; whoever works here asks for cores or GPUs of its own.
"""

from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import ray

from compress import teacher, training
from compress.checkpoint_engine import CheckpointEngine, checkpoint_engine
from compress.spread import Spread
from compress.steps import Tell
from compress.teacher import ROWS, Lot
from compress.training import Training
from deployments.vllm_start import EngineFailed

RETRIES = 5
"""So many times training goes on after a worker was lost, from its last checkpoint."""


def teach(checkpoint: Path, place: Path, lots: list[Lot], top_k: int, tell: Tell) -> None:
    """By one engine for each GPU, or one; each keeps its shards itself. Raises EngineFailed."""
    from ray import data  # seconds to import

    data.DataContext.get_current().enable_progress_bars = False
    gpus = int(ray.cluster_resources().get("GPU", 0))
    longest = max(len(row) for lot in lots for row in lot.rows)
    tell("starting vLLM as teacher", None)
    rows = [{"number": lot.number, "blocks": len(lot.rows), "tokens": list(chain(*lot.rows))} for lot in lots]
    # One shard a batch: an engine that is lost takes no more with it.
    asked = data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _Teacher,
        batch_size=1,
        compute=data.ActorPoolStrategy(size=min(len(lots), max(1, gpus))),
        fn_constructor_args=(checkpoint, place, top_k, longest + 1),
        num_cpus=0 if gpus else 1,
        num_gpus=1 if gpus else 0,
    )
    for done, answer in enumerate(asked.iter_rows(), start=1):
        if answer["failed"]:
            raise EngineFailed(answer["failed"])
        tell("asking the teacher", done / len(lots))


class _Teacher:
    """A source's engine, as Ray Data calls it: started by the first call, ended with its process."""

    def __init__(self, checkpoint: Path, place: Path, top_k: int, max_model_len: int) -> None:
        self._place, self._top_k = place, top_k
        self._starting = checkpoint_engine(checkpoint, max_model_len=max_model_len, max_num_seqs=ROWS, likeliest=top_k)
        self._engine: CheckpointEngine | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        number, blocks = int(batch["number"][0]), int(batch["blocks"][0])
        tokens = np.asarray(batch["tokens"][0]).reshape(blocks, -1).tolist()
        lot = Lot(number=number, rows=tuple(map(tuple, tokens)))
        try:
            engine = self._engine = self._engine or self._starting.__enter__()
            teacher.keep(self._place, lot, lambda asked: engine.scores(asked, self._top_k))
        except EngineFailed as error:
            # Raised, it would reach the other end inside three of Ray's own.
            return {"failed": [str(error)]}
        return {"failed": [""]}


def train(job: Training, tell: Tell) -> None:
    """By Ray Train where several workers share it: gloo between cores, NCCL between GPUs. Raises Diverged."""
    if job.step.workers == 1:
        training.train(job, 0, tell)
        return
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    gpus = ray.cluster_resources().get("GPU", 0) >= job.step.workers
    failures = FailureConfig(max_failures=RETRIES)
    result = TorchTrainer(
        _work,
        train_loop_config={"job": job, "tell": tell},
        scaling_config=ScalingConfig(num_workers=job.step.workers, use_gpu=gpus),
        run_config=RunConfig(name="ray", storage_path=str(job.folder), failure_config=failures),
    ).fit()
    if isinstance(result.return_value, Exception):
        raise result.return_value


def _work(given: dict[str, Any]) -> training.Diverged | None:
    """Returned, not raised: training that diverged would do so again."""
    from ray.train import get_context

    try:
        training.train(given["job"], get_context().get_world_rank(), given["tell"])
    except training.Diverged as error:
        return error
    return None


ON_RAY = Spread(teach=teach, train=train)
