"""How near are planned times and bytes to measured ones? Fitted on one run's first half; elsewhere from data sheets.

`python -m benchmarks.plan_accuracy --profiles FOLDER --output FILE`, some seconds. FOLDER holds `llmservingsim/`
(runs of casys-kaist/LLMServingSim at 5daddb2) and `vidur/` (kernel times of microsoft/vidur at 7d47513).
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from math import exp, hypot
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from benchmarks import peer_estimators as peers
from benchmarks.perf_profiles import Array, Kernels, Run, Times, read_decode_attention, read_kernels, read_runs
from benchmarks.predicted_runs import kv_blocks, predict
from benchmarks.published_models import INDEX_BYTES, NOMINAL_PARAMETERS, published
from cluster.calibration import identity, scaled
from cluster.kv_cache import bytes_per_token
from cluster.step_time import LINK_SHARE, Coefficients

FITTED = "RTXPRO6000_Llama-3.1-8B"
FIRST, SECOND, ALL = slice(0, 150), slice(150, 300), slice(0, 300)
TTFT_WEIGHT = 0.2
"""In the fit, of a first token's relative error beside a time per token's: small errors of a step add up in a queue."""
PRIOR_WEIGHT = 0.3
"""Pull towards where the fit starts, so that coefficients that the run can't tell apart stay put."""
SOUGHT = ("compute", "bandwidth", "kv_bandwidth", "step_s", "sequence_s", "token_s")
"""The run's prompts are too short to tell attention's share of arithmetic, which stays that of matrix products."""
SHARES = (0.3, 1.0)
OVERHEADS = ((1e-5, 2e-2), (1e-7, 1e-3), (1e-8, 1e-4))


def main() -> None:
    """Writes every figure of docs/plan_accuracy.md."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--profiles", type=Path, required=True)
    options.add_argument("--output", type=Path, required=True)
    given = options.parse_args()
    runs, kernels = read_runs(given.profiles), read_kernels(given.profiles)
    start = Coefficients(
        compute=compute_share(kernels["rtx-pro-6000"]),
        bandwidth=bandwidth_share(kernels["rtx-pro-6000"]),
        kv_bandwidth=cache_share(runs[FITTED], given.profiles),
        step_s=1e-3,
        sequence_s=1e-5,
        token_s=2e-6,
    )
    fitted = fit(runs[FITTED], start)
    default = suggested(fitted, kernels)
    found = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "kernels": {name: kernel_errors(each) for name, each in kernels.items()},
        "fitted": fitted_figures(runs[FITTED], start, fitted),
        "data_sheet": data_sheet_figures(runs, default),
        "peers": {"memory": memory(runs), "token_s": token_times(runs, default)},
    }
    given.output.write_text(json.dumps(found, indent=1) + "\n")


def compute_share(kernels: Kernels) -> float:
    """Of the device's operations, in its largest step."""
    tokens = max(kernels.seconds)
    return kernels.compute_s(tokens) / kernels.seconds[tokens]


def bandwidth_share(kernels: Kernels) -> float:
    """Of its bandwidth, in the smallest steps."""
    return median(kernels.reading_s / kernels.seconds[tokens] for tokens in (1, 2, 4, 8))


def cache_share(run: Run, profiles: Path) -> float:
    """Of its bandwidth, by a line through attention's seconds over the bytes that it reads."""
    read = np.array(read_decode_attention(profiles))
    slope, _ = np.polyfit(read[:, 0], read[:, 1], 1, w=1 / read[:, 1])
    return 1 / slope / run.device.bandwidth_bytes_per_s


def kernel_errors(kernels: Kernels) -> dict[str, Any]:
    """Of two formulas for a layer's matrix products, both with the shares of its smallest and largest steps: whichever
    of arithmetic and reading takes longer, and the root of both squared.
    """
    compute, bandwidth = compute_share(kernels), bandwidth_share(kernels)
    rows = []
    for tokens in (1, 8, 32, 64, 128, 256, 384, 512, 1024, 2048):
        sides = kernels.compute_s(tokens) / compute, kernels.reading_s / bandwidth
        measured = kernels.seconds[tokens]
        rows.append({"tokens": tokens, "seconds": measured})
        rows[-1] |= {"longer": max(sides) / measured - 1, "hypot": hypot(*sides) / measured - 1}
    return {"device": kernels.device.name, "compute": compute, "bandwidth": bandwidth, "errors": rows}


def suggested(fitted: Coefficients, kernels: dict[str, Kernels]) -> Coefficients:
    """For a device that was never measured: the middle one of the fit and two other devices' kernels; the cache, of
    which there is one measurement, in proportion to the weights.
    """
    others = kernels["a100"], kernels["h100"]
    bandwidth = median([fitted.bandwidth, *(bandwidth_share(each) for each in others)])
    return replace(
        fitted,
        compute=median([fitted.compute, *(compute_share(each) for each in others)]),
        bandwidth=bandwidth,
        kv_bandwidth=fitted.kv_bandwidth * bandwidth / fitted.bandwidth,
    )


def fit(run: Run, start: Coefficients) -> Coefficients:
    """By least squares on the first half's logarithms of times per token and to the first token, near `start`."""
    origin = np.log([getattr(start, name) for name in SOUGHT])

    def residuals(point: Array) -> Array:
        seen, said = run.measured.part(FIRST), predict(run, replace(start, **_named(np.exp(point)))).part(FIRST)
        return np.concatenate(
            [
                np.log(said.token_s / seen.token_s),
                TTFT_WEIGHT * np.log(said.ttft_s / seen.ttft_s),
                PRIOR_WEIGHT * (point - origin),
            ]
        )

    bounds = np.log(np.array([SHARES] * 3 + list(OVERHEADS))).T
    # Coarse differences: a request that moves by a step makes the times jump.
    solved = least_squares(residuals, origin, bounds=(bounds[0], bounds[1]), diff_step=5e-2)
    return replace(start, **_named(np.exp(solved.x)))


def _named(values: Array) -> dict[str, float]:
    return dict(zip(SOUGHT, map(float, values), strict=True))


def fitted_figures(run: Run, start: Coefficients, fitted: Coefficients) -> dict[str, Any]:
    """The run that was fitted to, before and after, each half by itself."""
    before, after = predict(run, start), predict(run, fitted)
    return {
        "run": run.name,
        "start": asdict(start),
        "coefficients": asdict(fitted),
        "kv_blocks": kv_blocks(run),
        "unfitted_151_300": compared(run.measured, before, SECOND),
        "fitted_1_150": compared(run.measured, after, FIRST),
        "tested_151_300": compared(run.measured, after, SECOND),
    }


def data_sheet_figures(runs: Mapping[str, Run], default: Coefficients) -> dict[str, Any]:
    """The three other runs, of which no time was used: and how far nine of ten requests' times per token were off."""
    others = [run for name, run in runs.items() if name != FITTED]
    found = {}
    logs, whole_link_logs = [], []
    for run in others:
        own = scaled(default, identity(runs[FITTED].model, "bf16"), identity(run.model, "bf16"))
        said = predict(run, own)
        whole = predict(run, own, link_share=1.0)
        logs.append(np.log(said.token_s / run.measured.token_s))
        whole_link_logs.append(np.log(whole.token_s / run.measured.token_s))
        found[run.name] = {
            "coefficients": asdict(own),
            "kv_blocks": kv_blocks(run),
            "all": compared(run.measured, said, ALL),
            "with_the_whole_link": compared(run.measured, whole, ALL),
        }
        if run.kv_tokens:
            told = predict(run, own, blocks=run.kv_tokens // run.settings.block_tokens)
            found[run.name]["with_the_reported_cache"] = compared(run.measured, told, ALL)
    return {
        "coefficients": asdict(default),
        "link_share": LINK_SHARE,
        "error": _of_nine_in_ten(np.concatenate(logs)),
        "error_with_the_whole_link": _of_nine_in_ten(np.concatenate(whole_link_logs)),
        "runs": found,
    }


def compared(measured: Times, said: Times, requests: slice) -> dict[str, Any]:
    """Each figure measured, predicted, and the prediction's relative error; and of single requests' times per token
    the error that nine of ten stay within.
    """
    one, other = measured.part(requests), said.part(requests)
    pairs = {
        "token_s_mean": (one.token_s.mean(), other.token_s.mean()),
        "token_s_p95": (np.quantile(one.token_s, 0.95), np.quantile(other.token_s, 0.95)),
        "ttft_s_mean": (one.ttft_s.mean(), other.ttft_s.mean()),
        "ttft_s_p50": (np.quantile(one.ttft_s, 0.5), np.quantile(other.ttft_s, 0.5)),
        "ttft_s_p95": (np.quantile(one.ttft_s, 0.95), np.quantile(other.ttft_s, 0.95)),
        "output_tokens_per_s": (one.output_tokens_per_s, other.output_tokens_per_s),
    }
    found: dict[str, Any] = {name: _pair(float(seen), float(guess)) for name, (seen, guess) in pairs.items()}
    return found | {"token_s_error_of_nine_in_ten": _of_nine_in_ten(np.log(other.token_s / one.token_s))}


def memory(runs: Mapping[str, Run]) -> dict[str, Any]:
    """Weights and bytes per cached token of each model, and the one cache whose size vLLM reported."""
    models = {name: published(name) for name in INDEX_BYTES}
    return {
        "weights_bytes": {
            name: {"exact": INDEX_BYTES[name]}
            | {
                "headrace": _pair(INDEX_BYTES[name], model.weight_bytes),
                "accelerate": _pair(INDEX_BYTES[name], peers.accelerate_weights_bytes(model)),
                "eleuther": _pair(INDEX_BYTES[name], peers.eleuther_bytes(model)),
                "substratus": _pair(INDEX_BYTES[name], peers.substratus_bytes(NOMINAL_PARAMETERS[name], 16)),
            }
            for name, model in models.items()
        },
        "kv_bytes_per_token": {
            name: {
                "headrace": bytes_per_token(model),
                "llm-d": peers.llm_d_kv_bytes_per_token(model),
                "kipply": peers.kipply_kv_bytes_per_token(model),
            }
            for name, model in models.items()
        },
        "cache_bytes": cache(next(run for run in runs.values() if run.kv_tokens)),
    }


def cache(run: Run) -> dict[str, Any]:
    """What is left for it, against vLLM's report."""
    token_bytes = bytes_per_token(run.model)
    reported = (run.kv_tokens or 0) * token_bytes
    share, device = run.settings.memory_share, run.device
    guesses = {
        "headrace": kv_blocks(run) * run.settings.block_tokens * token_bytes,
        "llm-d": peers.llm_d_cache_bytes(run.model, device, tensor=1, utilization=share),
    }
    wholes = {
        "accelerate": peers.accelerate_weights_bytes(run.model),
        "eleuther": peers.eleuther_bytes(run.model),
        "substratus": peers.substratus_bytes(NOMINAL_PARAMETERS[run.model_name], 16),
    }
    guesses |= {
        name: peers.remaining_cache_bytes(whole, device, tensor=1, utilization=share) for name, whole in wholes.items()
    }
    return {"run": run.name, "reported": reported} | {name: _pair(reported, guess) for name, guess in guesses.items()}


def token_times(runs: Mapping[str, Run], default: Coefficients) -> dict[str, Any]:
    """Mean time per token. Others know no queue: they are told how many sequences ran, as measured, and how long."""
    found = {}
    for name, run in runs.items():
        measured = float(run.measured.token_s.mean())
        context = float(np.mean([prompt + answer / 2 for _, prompt, answer in run.arrivals]))
        devices = run.layout.devices * run.data_parallel
        batch = run.running * run.data_parallel
        own = scaled(default, identity(runs[FITTED].model, "bf16"), identity(run.model, "bf16"))
        kipply = peers.kipply_token_s(run.model, run.device, batch=batch, devices=devices)
        databricks = peers.databricks_token_s(
            run.model, run.device, batch=batch, context_tokens=context, devices=devices
        )
        found[name] = {"running": run.running, "context_tokens": context, "overheads_fitted_here": name == FITTED}
        found[name] |= {"headrace": _pair(measured, float(predict(run, own).token_s.mean()))}
        found[name] |= {"kipply": _pair(measured, kipply), "databricks": _pair(measured, databricks)}
    return found


def _of_nine_in_ten(logs: Array) -> float:
    return exp(float(np.quantile(np.abs(logs), 0.9))) - 1


def _pair(measured: float, predicted: float) -> dict[str, float]:
    return {"measured": measured, "predicted": predicted, "error": predicted / measured - 1}


if __name__ == "__main__":
    main()
