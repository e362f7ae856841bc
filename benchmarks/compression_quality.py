"""What does each recipe of examples/recipes lose? In transformers and in vLLM, each beside the parent there.

`python -m benchmarks.compression_quality --output FILE`; results of steps are kept where `headrace compress` keeps
them. AWQ takes some ten minutes, those that distil hours, all others about an hour and a half on one core.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine_facts import circumstances, versions
from cluster.inventory import machine
from compress import flow, kept, shape, stages, statistics, steps
from compress.recipe import Recipe, read
from compress.report import Interval
from compress.scores import Scores, agreement
from headrace.fetching import cache_folder, resolve

RECIPES = Path(__file__).resolve().parent.parent / "examples" / "recipes"


def main() -> None:
    """Measures every recipe and writes after each what is known by then."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--output", type=Path, required=True)
    options.add_argument("names", nargs="*", help="files of examples/recipes, without .yaml; default: all")
    given = options.parse_args()
    facts = circumstances() | {"versions": versions() | steps.versions()}
    rows = json.loads(given.output.read_text())["rows"] if given.output.exists() else {}
    for name in given.names or sorted(path.stem for path in RECIPES.glob("*.yaml")):
        started_s = time.perf_counter()
        rows[name] = measure(read(RECIPES / f"{name}.yaml"))
        print(f"{name}: ratio {rows[name]['ratio']['value']:.3f}, {time.perf_counter() - started_s:.0f} s", flush=True)
        given.output.write_text(json.dumps(facts | {"rows": rows}, indent=1) + "\n")


def measure(recipe: Recipe) -> dict[str, Any]:
    """One recipe's figures, each with its 95 % interval over blocks."""
    parent, store = resolve(recipe.source), cache_folder() / "compress"
    said = stages.texts(recipe, stages.tokenizer(parent))
    parent_hash = kept.checkpoint_hash(parent)
    needs = flow.Needs(memory_bytes=0)
    places = flow.carry_out(recipe, parent, parent_hash, said, store, flow.here, needs)
    done = [steps.done(place) for place in places]
    names = stages.names(recipe, said, parent_hash, done[-1].weights_hash, machine())
    before, after = store / names["read_parent"], store / names["read"]
    flow.here(stages.read, parent, None, said, before, needs=needs)
    flow.here(stages.read, places[-1], before, said, after, needs=needs)
    flow.here(stages.serve, parent, recipe, said, store / names["serve_parent"], needs=needs)
    flow.here(stages.serve, places[-1], recipe, said, store / names["serve"], needs=needs)
    one, other = Scores.load(before / stages.EVALUATION), Scores.load(after / stages.EVALUATION)
    figures = {
        "parent_perplexity": statistics.perplexity(one.nats),
        "perplexity": statistics.perplexity(other.nats),
        "ratio": statistics.perplexity_ratio(artefact=other.nats, parent=one.nats),
        "kl": statistics.block_mean(np.load(after / stages.KL)),
        "top1": statistics.block_mean(agreement(one, other)),
    }
    figures |= in_vllm(store / names["serve_parent"], store / names["serve"])
    return {name: interval.model_dump() for name, interval in figures.items()} | {
        "bytes": shape.read(places[-1]).bytes,
        "step_seconds": [step.seconds for step in done],
        "weights_hash": done[-1].weights_hash,
        "evaluation_hash": said.evaluation.hash,
    }


def in_vllm(parent: Path, artefact: Path) -> dict[str, Interval]:
    """The same perplexities by the engine, and how many answers to each task are right there."""
    one, other = Scores.load(parent / stages.EVALUATION), Scores.load(artefact / stages.EVALUATION)
    found = {
        "vllm_parent_perplexity": statistics.perplexity(one.nats),
        "vllm_perplexity": statistics.perplexity(other.nats),
        "vllm_ratio": statistics.perplexity_ratio(artefact=other.nats, parent=one.nats),
    }
    for where, served in (("parent_", parent), ("", artefact)):
        for task, answers in stages.answers(served).items():
            found[f"vllm_{where}{task}"] = statistics.share(answers.right)
    return found


if __name__ == "__main__":
    main()
