"""What does a simulation look like for programs?"""

import json
from dataclasses import asdict
from typing import Any

from headrace.simulate import Played, Result

FORMAT = 1


def to_json(result: Result) -> str:
    """Same input, same bytes."""
    case, setup = result.case, result.case.setup
    return json.dumps(
        {
            "format": FORMAT,
            "model": case.model.name,
            "device": case.place.device.name,
            "devices_per_replica": setup.devices,
            "times_by": case.speeds.origin,
            "trace": {
                "file": result.trace,
                "requests": result.requests,
                "span_s": result.span_s,
                "prompt_tokens": result.prompt_tokens,
                "output_tokens": result.output_tokens,
            },
            "startup_s": setup.startup_s,
            "replicas": {"min": setup.min_replicas, "max": setup.max_replicas},
            "targets": asdict(case.targets),
            "currency": result.currency if result.price else None,
            "runs": [_run(played) for played in result.runs],
            "notes": result.notes,
        },
        indent=1,
        allow_nan=False,
    )


def _run(played: Played) -> dict[str, Any]:
    digest = asdict(played.digest)
    return {"policy": str(played.asked), "seed": played.seed, "cost": played.cost, **digest.pop("summary"), **digest}
