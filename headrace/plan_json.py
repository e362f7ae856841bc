"""What does `headrace plan --json` print? Each figure with its unit in its name; what is unknown or endless is null."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from math import isfinite
from typing import Any

from cluster import kv_cache
from cluster.fit import Fit
from cluster.model import Model
from cluster.speed import limit
from headrace.plan_answer import Answer, Replica
from headrace.plan_result import Result
from headrace.plan_variants import Served

FORMAT = 1


def to_json(result: Result) -> str:
    """The whole plan of a model."""
    return _written({"format": FORMAT, **_plan(result)})


def of_fleet(file: str, results: Sequence[Result]) -> str:
    """The plans of a fleet's models."""
    return _written({"format": FORMAT, "fleet": file, "models": [_plan(result) for result in results]})


def _written(values: dict[str, Any]) -> str:
    return json.dumps(_strict(values), indent=1, allow_nan=False)


def _plan(result: Result) -> dict[str, Any]:
    return {
        "model": _model(result.asked.name, result.asked.origin, result.asked.model),
        "load": _load(result),
        "prices": {
            "file": str(result.prices_file),
            "currency": result.currency,
            "devices": {name: price.model_dump(mode="json") for name, price in result.prices.items()},
        },
        "plans": [_answer(answer) for answer in result.answers],
        "training": result.training and _training(result),
        "notes": list(result.notes),
    }


def _model(name: str, origin: str, model: Model) -> dict[str, Any]:
    return {
        "name": name,
        "origin": origin,
        "architecture": model.architecture,
        "layers": model.layers,
        "parameters": model.parameters,
        "active_parameters": model.active_parameters,
        "weights_bytes": model.weight_bytes,
        "part_bytes": {name: part.bytes for name, part in model.parts.items()},
        "kv_bytes_per_token": kv_cache.bytes_per_token(model),
        "context_tokens": model.context_tokens,
        "quantized": model.quantized,
    }


def _load(result: Result) -> dict[str, Any]:
    traffic = result.traffic
    return {
        "origin": traffic.origin,
        "context_tokens": result.context_tokens,
        "prompt_tokens": traffic.requests.prompt_tokens,
        "output_tokens": traffic.requests.output_tokens,
        "requests_per_s": traffic.rate_per_s,
        "ttft_target_s": traffic.ttft_s,
        "token_target_s": traffic.token_s,
    }


def _answer(answer: Answer) -> dict[str, Any]:
    variant, device = answer.variant, answer.device
    return {
        "variant": {
            "name": variant.name,
            "weights_bytes": variant.model.weight_bytes,
            "quality": variant.quality and asdict(variant.quality),
            "served": variant.served and _served(answer, variant.served),
            "note": variant.note,
        },
        "device": {
            "name": device.name,
            "memory_bytes": device.memory_bytes,
            "bandwidth_bytes_per_s": device.bandwidth_bytes_per_s,
            "source": device.source,
            "per_machine": answer.place.per_machine,
        },
        "engine": asdict(answer.settings),
        "fits_on_one": answer.alone.fits,
        "on_one": _fit(answer.alone),
        "remedies": [
            {"change": one.change, **_layout(one.layout), "largest_batch": one.largest_batch} for one in answer.remedies
        ],
        "splits": [_fit(each) for each in answer.splits],
        "refused": [{"tensor": count, "reasons": list(reasons)} for count, reasons in answer.refused],
        "replica": answer.replica and _replica(answer, answer.replica),
    }


def _served(answer: Answer, served: Served) -> dict[str, Any]:
    return {
        "quality": asdict(served.share),
        "most_replicas": served.most_replicas,
        "most_requests_per_s": answer.most_per_s and served.most_replicas * answer.most_per_s,
    }


def _layout(layout: Any) -> dict[str, int]:
    return {"tensor": layout.tensor, "pipeline": layout.pipeline, "devices": layout.devices}


def _fit(found: Fit) -> dict[str, Any]:
    memory = found.memory
    return {
        **_layout(found.layout),
        "fits": found.fits,
        "usable_bytes": memory.usable_bytes,
        "weights_bytes": memory.weights_bytes,
        "activation_bytes": memory.activation_bytes,
        "runtime_bytes": memory.runtime_bytes,
        "sequence_bytes": found.sequence_bytes,
        "cache_bytes": max(0, memory.kv_bytes),
        "missing_bytes": found.missing_bytes,
        "largest_batch": found.largest_batch,
        "largest_context_tokens": found.largest_context,
    }


def _replica(answer: Answer, replica: Replica) -> dict[str, Any]:
    told, known = replica.speed, replica.speeds
    return {
        "fit": _fit(replica.fit),
        "slots": replica.slots,
        "times": {
            "origin": known.origin,
            "error": known.error,
            "dtype": known.dtype,
            "coefficients": asdict(known.coefficients),
        },
        "ttft_s": _interval(told.ttft_s, known.error),
        "token_s": _interval(told.token_s, known.error),
        "full_token_s": _interval(told.full_token_s, known.error),
        "full_tokens_per_s": _interval(told.full_tokens_per_s, known.error),
        "prefill_tokens_per_s": _interval(told.prefill_tokens_per_s, known.error),
        "prefill_limit": limit(told.prefill),
        "decode_limit": limit(told.decode),
        "full_decode_limit": limit(told.full_decode),
        "sizing": replica.sizing and asdict(replica.sizing) | {"devices": replica.all_devices},
        "cost": answer.cost and asdict(answer.cost),
    }


def _interval(value: float, error: float) -> dict[str, float]:
    return {"value": value, "low": value / (1 + error), "high": value * (1 + error)}


def _training(result: Result) -> list[dict[str, Any]]:
    return [
        {
            "device": device,
            "sharding": row.sharding,
            "devices": row.devices,
            **asdict(row.memory),
            "bytes": row.memory.bytes,
            "missing_bytes": row.missing_bytes,
            "fits": not row.missing_bytes,
        }
        for device, rows in result.training.items()
        for row in rows
    ]


def _strict(value: Any) -> Any:
    """JSON has no word for what is endless."""
    match value:
        case dict():
            return {key: _strict(inside) for key, inside in value.items()}
        case list() | tuple():
            return [_strict(inside) for inside in value]
        case float() if not isfinite(value):
            return None
    return value
