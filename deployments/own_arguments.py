"""Which engine arguments does Headrace set itself, and what should a fleet say instead?"""

from collections.abc import Iterable

SPREAD_COPIES = (
    "data_parallel_size_local",
    "data_parallel_rank",
    "data_parallel_start_rank",
    "data_parallel_address",
    "data_parallel_backend",
    "data_parallel_external_lb",
    "data_parallel_hybrid_lb",
)
"""By these vLLM's data parallelism would leave the machine that Ray gave to a replica."""
OURS = {
    "model": "write `source` beside `engine`",
    "tokenizer": "the one in `source` is used, so that router and engine count alike",
    "served_model_name": "write `name` beside `engine`",
    "tensor_parallel_size": "write `tensor_parallel` beside `engine`",
    "pipeline_parallel_size": "write `pipeline_parallel` beside `engine`",
    "nnodes": "write `nodes` beside `engine`",
    **dict.fromkeys(SPREAD_COPIES, "the copies of data_parallel_size all run on the replica's machine"),
    "distributed_executor_backend": "it follows from `nodes`",
    "host": "write `router.host`",
    "port": "write `router.port`",
}
"""Engine arguments that Headrace sets itself, and what to do instead."""


def refuse_own(names: Iterable[str]) -> None:
    """Raises ValueError for an engine argument that is one of these, or is not written as vLLM's Python names it."""
    for name in names:
        plain = name.lstrip("-").replace("-", "_")
        if plain in OURS:
            raise ValueError(f"{name} is set by Headrace: {OURS[plain]}")
        if plain != name:
            raise ValueError(f"{name} is no engine argument: write {plain}")
