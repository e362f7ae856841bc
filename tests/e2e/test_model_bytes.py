"""What is computed of a model's bytes is what vLLM 0.29 itself says: its parameters, its cache, its concurrency."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from cluster.kv_cache import Cut, bytes_per_token, pool
from cluster.loaded_weights import loaded_bytes
from cluster.model import LatentAttention, Model
from cluster.model_config import describe
from tests.cluster.published import NAMES, Published, published

UNBUILT = {
    "bamba-9b": "vLLM gave it up after 0.23",
    "qwen3.5-25b-a3b": "vLLM's file of it also sees, which needs torchvision",
}
BUILT = tuple(name for name in NAMES if name not in UNBUILT)
FEW = ("qwen3-1.7b", "gpt-oss-20b", "deepseek-v2-lite", "granite-4.0-h-small")
UNDIVIDED = {
    "falcon-7b": "71 heads",
    "qwen2.5-14b": "40 heads",
    "llama-4-scout": "40 heads",
    "gemma-2b": "8 heads",
    "gemma-3-4b": "8 heads",
    "phi-4-mini": "24 heads",
    "gpt-oss-20b": "2880 neurons in blocks of the kernel",
    "mamba-codestral-7b": "8 groups",
    "nemotron-h-8b": "8 groups",
}
"""Over 16 devices."""
KV_BYTES = 2**46
"""Of no machine, but enough for every model's whole context."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is compared of one model."""

    weights: int
    kv_per_token: int
    blocks: int
    concurrency: float
    context_tokens: int


def decoder(known: Published) -> tuple[dict[str, Any], Model]:
    """config.json of the decoder alone, where a model also sees: its eyes need packages that are not here."""
    config = known.config
    if "text_config" in config:
        config = {**config["text_config"], "architectures": ["Gemma3ForCausalLM"], "torch_dtype": "bfloat16"}
    return config, describe(config, [tensor for tensor in known.tensors if tensor.part != "other"])


def run(script: str, asked: list[dict[str, Any]], *, devices: int = 1) -> list[dict[str, Any]]:
    """What a script beside this file answers, a line of JSON for each thing asked."""
    ranks = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": str(devices), "MASTER_ADDR": "localhost"}
    answered = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(script))],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        env=os.environ | ranks | {"MASTER_PORT": "29577", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        timeout=900,
        check=False,
    )
    rows = [json.loads(line) for line in answered.stdout.splitlines() if line.startswith("{")]
    assert len(rows) == len(asked), answered.stderr[-3000:]
    return rows


def theirs(names: tuple[str, ...], *, devices: int = 1, **told: Any) -> list[dict[str, Any]]:
    asked = [
        {"config": decoder(published(name))[0], "kv_bytes": KV_BYTES, "tensor_parallel_size": devices, **told}
        for name in names
    ]
    return run("vllm_bytes.py", asked, devices=devices)


def ours(model: Model, said: dict[str, Any], *, devices: int, block_tokens: int | None, kv_bits: int | None) -> Row:
    latent = any(isinstance(mixer, LatentAttention) for mixer in model.mixers)
    # On a CPU, whose kernel for latent attention knows blocks of 16 only.
    cut = Cut(
        tensor_parallel=devices,
        block_tokens=16 if latent else block_tokens or 128,
        kernel_tokens=16 if latent else 32,
        kv_bits=kv_bits,
        state_bits=32,
        in_flight_tokens=said["in_flight_tokens"],
        keeps_prefixes=said["keeps_prefixes"],
    )
    made = pool(model, cut)
    return Row(
        weights=loaded_bytes(model, devices),
        kv_per_token=bytes_per_token(model, tensor_parallel=devices, kv_bits=kv_bits),
        blocks=KV_BYTES // made.block_bytes,
        concurrency=made.max_concurrency(KV_BYTES, said["context_tokens"]),
        context_tokens=model.context_tokens,
    )


def compare(
    names: tuple[str, ...],
    *,
    devices: int = 1,
    block_tokens: int | None = None,
    kv_bits: int | None = None,
    **told: Any,
) -> None:
    """Every figure of every model, exactly. Prints a table for whoever asks pytest to show it."""
    unequal = []
    for name, said in zip(names, theirs(names, devices=devices, **told), strict=True):
        assert "error" not in said, f"{name}: {said['error']}"
        _, model = decoder(published(name))
        row = ours(model, said, devices=devices, block_tokens=block_tokens, kv_bits=kv_bits)
        vllm = Row(
            weights=said["parameter_bytes"],
            kv_per_token=said["kv_bytes_per_token"],
            blocks=said["blocks"],
            concurrency=said["concurrency"],
            context_tokens=said["context_tokens"],
        )
        print(
            f"{name:22} {row.weights:>14} {vllm.weights:>14} {row.kv_per_token:>7} {vllm.kv_per_token:>7}", row == vllm
        )
        unequal += [] if row == vllm else [(name, row, vllm)]
    assert not unequal


@pytest.mark.prove
@pytest.mark.timeout(300)
def test_four_kinds_of_decoders_weigh_what_vllm_says() -> None:
    compare(FEW)


@pytest.mark.prove
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("devices", [1, 2, 16])
def test_every_published_decoder_weighs_what_vllm_says(devices: int) -> None:
    left_out = {1: {}, 2: {"falcon-7b": "71 heads"}, 16: UNDIVIDED}[devices]
    compare(tuple(name for name in BUILT if name not in left_out), devices=devices)


@pytest.mark.prove
@pytest.mark.timeout(1200)
def test_other_blocks_and_no_prefixes() -> None:
    compare(BUILT, block_tokens=64, block_size=64, enable_prefix_caching=False)


@pytest.mark.prove
@pytest.mark.timeout(1200)
def test_an_eight_bit_cache() -> None:
    unheard = "falcon-7b"  # vLLM does not tell its attention which cache was asked for
    compare(tuple(name for name in BUILT if name != unheard), kv_bits=8, kv_cache_dtype="fp8")


@pytest.mark.prove
@pytest.mark.timeout(1200)
def test_engines_that_start_say_the_same_at_their_start() -> None:
    """Real shapes, fewer layers and a small vocabulary: of a uniform cache, of windows and of a window alone."""
    cuts = {"qwen3-1.7b": 4, "gemma-3-4b": 6, "mistral-7b-v0.1": 2}
    asked, models = [], []
    for name, layers in cuts.items():
        config, model = decoder(published(name))
        asked.append({"config": {**config, "num_hidden_layers": layers, "vocab_size": 1024}})
        models.append(replace(model, mixers=model.mixers[:layers]))
    for model, said in zip(models, run("vllm_started.py", asked), strict=True):
        cut = Cut(block_tokens=128, kernel_tokens=32, in_flight_tokens=said["in_flight_tokens"])
        made = pool(model, cut)
        assert said["blocks"] == said["kv_bytes"] // made.block_bytes
        assert said["concurrency"] == made.max_concurrency(said["kv_bytes"], said["context_tokens"])
        print(model.architecture, said)


@pytest.mark.prove
@pytest.mark.timeout(600)
def test_the_tensors_that_were_recorded_are_those_of_transformers() -> None:
    shapes = {name: sorted([tensor.name, list(tensor.shape)] for tensor in published(name).tensors) for name in NAMES}
    for (name, recorded), made in zip(
        shapes.items(), run("meta_tensors.py", [published(name).config for name in NAMES]), strict=True
    ):
        # transformers has no head of its own where the embedding is one.
        stored = [tensor for tensor in recorded if tensor[0] != "lm_head.weight" or tensor in made["tensors"]]
        assert stored == made["tensors"], name
