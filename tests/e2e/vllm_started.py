"""What does a vLLM engine say at its start? Starts one after the other with dummy weights, on a CPU.

Reads a JSON list from stdin, writes a line of JSON for each.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}

from vllm import LLM

KV_BYTES = 2**30
CONTEXT_TOKENS = 4096


def said(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    (folder / "config.json").write_text(json.dumps(config))
    engine = LLM(
        model=str(folder),
        load_format="dummy",
        skip_tokenizer_init=True,
        enforce_eager=True,
        max_model_len=CONTEXT_TOKENS,
        kv_cache_memory_bytes=KV_BYTES,
        max_num_seqs=8,
    )
    made = engine.llm_engine.vllm_config
    answer = {
        "kv_bytes": KV_BYTES,
        "context_tokens": made.model_config.max_model_len,
        "blocks": made.cache_config.num_gpu_blocks,
        "concurrency": made.cache_config.kv_cache_max_concurrency,
        "in_flight_tokens": made.max_in_flight_tokens,
    }
    engine.llm_engine.engine_core.shutdown()
    return answer


if __name__ == "__main__":
    for asked in json.load(sys.stdin):
        with tempfile.TemporaryDirectory() as place:
            print(json.dumps(said(asked["config"], Path(place))), flush=True)
