"""What was measured on real GPUs? Serving runs of vLLM 0.19 (LLMServingSim) and times of kernels (also of Vidur)."""

import csv
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.published_models import published
from cluster.device_facts import find
from cluster.devices import Device
from cluster.engine_memory import EngineSettings
from cluster.model import Model
from cluster.step_time import Layout
from simulation.replay import Arrival

Array = np.ndarray[Any, np.dtype[np.float64]]

SERVER_EDITION_BANDWIDTH = 1597e9
"""Bytes per second of an RTX PRO 6000 Blackwell Server Edition, as the profiles' config.json has it: the Workstation
Edition has 1,792 GB/s."""


@dataclass(frozen=True, kw_only=True)
class Times:
    """When requests got their tokens, one value for each request."""

    arrival_s: Array
    first_token_s: Array
    last_token_s: Array
    output_tokens: Array

    @property
    def ttft_s(self) -> Array:
        return self.first_token_s - self.arrival_s

    @property
    def token_s(self) -> Array:
        """From one token to the next, in the mean of each request."""
        return (self.last_token_s - self.first_token_s) / (self.output_tokens - 1)

    @property
    def output_tokens_per_s(self) -> float:
        return float(self.output_tokens.sum() / (self.last_token_s.max() - self.arrival_s.min()))

    def part(self, requests: slice) -> "Times":
        return Times(
            arrival_s=self.arrival_s[requests],
            first_token_s=self.first_token_s[requests],
            last_token_s=self.last_token_s[requests],
            output_tokens=self.output_tokens[requests],
        )


@dataclass(frozen=True, kw_only=True)
class Run:
    """300 requests at 10 a second to one fleet."""

    name: str
    model_name: str
    """By the names of published_models."""
    model: Model
    device: Device
    layout: Layout
    data_parallel: int
    """Replicas that share their experts."""
    settings: EngineSettings
    arrivals: tuple[Arrival, ...]
    measured: Times
    running: float
    """Sequences in one replica's batch, in the mean over the time that it had any."""
    kv_tokens: int | None
    """Of the cache, as vLLM reported it."""


def read_runs(profiles: Path) -> dict[str, Run]:
    """The four runs, by the names of their folders."""
    server_edition = replace(find("rtx-pro-6000"), bandwidth_bytes_per_s=SERVER_EDITION_BANDWIDTH)
    places = {
        "RTXPRO6000_Llama-3.1-8B": ("Llama-3.1-8B", server_edition),
        "RTX4090_Llama-3.1-8B": ("Llama-3.1-8B", find("rtx-4090")),
        "RTXPRO6000_Qwen3-32B": ("Qwen3-32B", server_edition),
        "RTXPRO6000_Qwen3-30B-A3B-Instruct-2507": ("Qwen3-30B-A3B", server_edition),
    }
    return {name: _read(profiles / "llmservingsim" / name, model, device) for name, (model, device) in places.items()}


def _read(folder: Path, model_name: str, device: Device) -> Run:
    model = published(model_name)
    meta = json.loads((folder / "meta.json").read_text())
    engine = meta["engine_kwargs"]
    requests = [json.loads(line) for line in (folder / "requests.jsonl").read_text().splitlines()]
    measured = _times(requests)
    return Run(
        name=folder.name,
        model_name=model_name,
        model=model,
        device=device,
        layout=Layout(tensor=engine["tensor_parallel_size"]),
        data_parallel=engine["data_parallel_size"],
        settings=EngineSettings(
            max_sequences=engine["max_num_seqs"],
            batched_tokens=engine["max_num_batched_tokens"],
            context_tokens=engine["max_model_len"] or model.context_tokens,
            memory_share=0.9,  # vLLM's default then
        ),
        arrivals=tuple(
            (float(arrival_s), each["input_toks"], each["output_toks"])
            for arrival_s, each in zip(measured.arrival_s, requests, strict=True)
        ),
        measured=measured,
        running=_running(folder) / engine["data_parallel_size"],
        kv_tokens=meta.get("kv_cache", {}).get("num_kv_tokens"),
    )


def _times(requests: list[dict[str, Any]]) -> Times:
    """On one clock: arrivals were noted on another than the rest. The quickest request is taken to have been queued at
    once.
    """
    columns = {key: np.array([each[key] for each in requests]) for key in requests[0] if key != "request_id"}
    ahead_s = (columns["queued_ts"] - columns["arrival_time"]).min()
    started_s = columns["arrival_time"].min()
    return Times(
        arrival_s=columns["arrival_time"] - started_s,
        first_token_s=columns["first_token_ts"] - ahead_s - started_s,
        last_token_s=columns["last_token_ts"] - ahead_s - started_s,
        output_tokens=columns["output_toks"].astype(float),
    )


def _running(folder: Path) -> float:
    with (folder / "timeseries.csv").open() as file:
        seen = [float(row["running"]) for row in csv.DictReader(file)]
    return float(np.mean([value for value in seen if value]))


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """Seconds of one layer's matrix products together, by tokens."""

    device: Device
    weights: int
    seconds: dict[int, float]

    def compute_s(self, tokens: int) -> float:
        """At the device's full rate."""
        return 2 * tokens * self.weights / self.device.flops["bf16"]

    @property
    def reading_s(self) -> float:
        """Of the weights, at the device's full bandwidth."""
        return 2 * self.weights / self.device.bandwidth_bytes_per_s


def read_kernels(profiles: Path) -> dict[str, Kernels]:
    """Llama-2-7B's layer on an A100 and an H100, Llama-3.1-8B's on the RTX PRO 6000."""
    server_edition = replace(find("rtx-pro-6000"), bandwidth_bytes_per_s=SERVER_EDITION_BANDWIDTH)
    return {
        "a100": _vidur(profiles / "vidur" / "a100_Llama-2-7b_mlp.csv", find("a100-80gb")),
        "h100": _vidur(profiles / "vidur" / "h100_Llama-2-7b_mlp.csv", find("h100")),
        "rtx-pro-6000": _dense(profiles / "llmservingsim" / LAYERS / "dense.csv", server_edition),
    }


LAYERS = "layer_profile_RTXPRO6000_Llama-3.1-8B_tp1"


def _vidur(path: Path, device: Device) -> Kernels:
    maps = ("attn_pre_proj", "attn_post_proj", "mlp_up_proj", "mlp_down_proj")
    with path.open() as file:
        rows = [row for row in csv.DictReader(file) if row["num_tensor_parallel_workers"] == "1"]
    hidden, wide = int(rows[0]["n_embd"]), int(rows[0]["n_expanded_embd"])
    return Kernels(
        device=device,
        weights=4 * hidden * hidden + 3 * hidden * wide,
        seconds={
            int(row["num_tokens"]): 1e-3 * sum(float(row[f"time_stats.{one}.median"]) for one in maps) for row in rows
        },
    )


def _dense(path: Path, device: Device) -> Kernels:
    maps = {"qkv_proj": 6144 * 4096, "o_proj": 4096 * 4096, "gate_up_proj": 28672 * 4096, "down_proj": 14336 * 4096}
    seconds: dict[int, float] = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            if row["layer"] in maps:
                tokens = int(row["tokens"])
                seconds[tokens] = seconds.get(tokens, 0.0) + 1e-6 * float(row["time_us"])
    return Kernels(device=device, weights=sum(maps.values()), seconds=seconds)


def read_decode_attention(profiles: Path) -> list[tuple[int, float]]:
    """Bytes of the cache that one layer reads, and its seconds, of batches of decodes on the RTX PRO 6000."""
    with (profiles / "llmservingsim" / LAYERS / "attention.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["prefill_chunk"] == "0"]
    token_bytes = 2 * 8 * 128 * 2  # keys and values of 8 heads, bfloat16
    return [(int(row["n_decode"]) * int(row["kv_decode"]) * token_bytes, 1e-6 * float(row["time_us"])) for row in rows]
