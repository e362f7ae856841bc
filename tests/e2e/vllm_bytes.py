"""What does vLLM itself say of models' bytes? Builds each on the meta device, in this process, without an engine.

Reads a JSON list from stdin: config.json of a model, and what the engine is told. Writes a line of JSON for each.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}

import torch
from torch.testing._internal.distributed.fake_pg import FakeStore
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.distributed import destroy_model_parallel, init_distributed_environment, initialize_model_parallel
from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator
from vllm.distributed.device_communicators.shm_broadcast import MessageQueue
from vllm.engine.arg_utils import EngineArgs
from vllm.model_executor.model_loader.utils import initialize_model
from vllm.platforms import current_platform
from vllm.utils.torch_utils import set_default_torch_dtype
from vllm.v1.core import kv_cache_utils
from vllm.v1.kv_cache_interface import AttentionSpec
from vllm.v1.worker.gpu.attn_utils import get_kv_cache_spec


def said(config: dict[str, Any], *, kv_bytes: int, folder: Path, **told: Any) -> dict[str, Any]:
    """Bytes of parameters, of a token and of the pool, as vLLM computes them."""
    (folder / "config.json").write_text(json.dumps(config))
    arguments = {"load_format": "dummy", "skip_tokenizer_init": True, "enforce_eager": True} | told
    # One process stands for the first of tensor_parallel_size devices.
    engine = EngineArgs(model=str(folder), distributed_executor_backend="external_launcher", **arguments)
    made = engine.create_engine_config()
    with set_current_vllm_config(made):
        _join(made.parallel_config.tensor_parallel_size)
        with torch.device("meta"), set_default_torch_dtype(made.model_config.dtype):
            model = initialize_model(made)
        current_platform.update_block_size_for_backend(made)
        return _figures(made, model, kv_bytes)


def _join(devices: int) -> None:
    """Makes this process the first of so many, of which the others never speak."""
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("fake", rank=0, world_size=devices, store=FakeStore())
    real = torch.distributed.new_group

    def silent(ranks: list[int], **settings: Any) -> Any:
        return real(ranks, **{**settings, "backend": "fake"})

    # Anew for each model: those with experts get groups that others lack.
    destroy_model_parallel()
    alone = patch.object(CpuCommunicator, "_all_group_ranks_share_shm_group_name", lambda _: False)
    unsent = patch.object(MessageQueue, "create_from_process_group", lambda *_, **__: None)
    with patch.object(torch.distributed, "new_group", silent), alone, unsent:
        init_distributed_environment(devices, 0, "fake://", 0, backend="fake")
        initialize_model_parallel(devices, backend="fake")


def _figures(made: VllmConfig, model: torch.nn.Module, kv_bytes: int) -> dict[str, Any]:
    specs = get_kv_cache_spec(made)
    made.cache_config.kv_cache_layout = "LBNHC"
    attention = [spec for spec in specs.values() if isinstance(spec, AttentionSpec)]
    (cache,) = kv_cache_utils.get_kv_cache_configs(made, [dict(specs)], [kv_bytes])
    return {
        "parameter_bytes": sum(each.numel() * each.element_size() for each in model.parameters()),
        "kv_bytes_per_token": sum(spec.unpadded_page_size_bytes // spec.block_size for spec in attention),
        "block_tokens": made.cache_config.block_size,
        "blocks": cache.num_blocks,
        "concurrency": kv_cache_utils.get_max_concurrency_for_kv_cache_config(made, cache),
        "context_tokens": made.model_config.max_model_len,
        "in_flight_tokens": made.max_in_flight_tokens,
        "keeps_prefixes": made.cache_config.enable_prefix_caching,
    }


def main() -> None:
    for number, asked in enumerate(json.load(sys.stdin)):
        with tempfile.TemporaryDirectory() as folder:
            try:
                answer = said(**asked, folder=Path(folder))
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
                if "TRACE" in os.environ:
                    raise
        print(json.dumps({"number": number, **answer}), flush=True)


if __name__ == "__main__":
    main()
