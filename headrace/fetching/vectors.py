"""How are the reference vectors of a model that pools made? With transformers, in float32."""

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from deployments.reference import Vector, Vectors
from headrace.fetching import checkpoint
from headrace.fetching.progress import Progress, Step
from headrace.fetching.quiet import one_thread

LONGEST_TOKENS = 256
DECIMALS = 7
TRANSFORMER, POOLING, NORMALIZE = (
    f"sentence_transformers.models.{name}" for name in ("Transformer", "Pooling", "Normalize")
)
WAYS: dict[str, Callable[[Any], Any]] = {
    "pooling_mode_mean_tokens": lambda states: states.mean(dim=0),
    "pooling_mode_cls_token": lambda states: states[0],
    "pooling_mode_lasttoken": lambda states: states[-1],
}
"""From the last hidden states of one text, a row for each token, to one vector."""

KINDS = {
    "regression": "Identity",
    "single_label_classification": "Softmax",
    "multi_label_classification": "EachSigmoid",
}
"""Of a classifier's `problem_type`, what is done to its logits."""


class NotComputed(ValueError):
    """Nothing here can say what this model should give; the text is the reason."""


def compute(folder: Path, name: str, progress: Progress, texts: tuple[str, ...]) -> Vectors:
    """What each text becomes: the embedding as modules.json says, or classes' scores as config.json says.

    Raises NotComputed for a model with code of its own, and for one that says neither.
    """
    import torch
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

    classifies = any(name.endswith("ForSequenceClassification") for name in checkpoint.architectures(folder))
    kind = AutoModelForSequenceClassification if classifies else AutoModel
    config = _json(folder / "config.json")
    if "auto_map" in config:
        raise NotComputed("code of its own computes it")
    pool = _scoring(config) if classifies else _pooling(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    model = kind.from_pretrained(folder, dtype=torch.float32, trust_remote_code=False).eval()
    most = min(LONGEST_TOKENS, tokenizer.model_max_length, _longest(folder))
    vectors = []
    with one_thread(), torch.inference_mode():
        for text in texts:
            asked = tokenizer(text, truncation=True, max_length=most, return_tensors="pt")
            vectors.append(_vector(asked["input_ids"][0].tolist(), pool(model(**asked))))
            progress(Step(phase=f"{name}: reference vectors", share=len(vectors) / len(texts)))
    made_by = f"transformers {version('transformers')}, float32"
    return Vectors(made_by=made_by, task="classify" if classifies else "embed", vectors=tuple(vectors))


def _vector(token_ids: list[int], values: Any) -> Vector:
    return Vector(token_ids=tuple(token_ids), values=tuple(round(value, DECIMALS) for value in values.tolist()))


def _scoring(config: dict[str, Any]) -> Callable[[Any], Any]:
    """What makes classes' scores of a model's output, by what vLLM goes by (`get_act_fn`)."""
    named = config.get("sentence_transformers", {}).get("activation_fn")
    named = named or config.get("sbert_ce_default_activation_function") or "Softmax"
    kind = KINDS.get(config.get("problem_type") or "", named.rpartition(".")[2])
    match kind:
        case "Identity":
            return lambda output: output.logits[0]
        case "EachSigmoid":
            return lambda output: output.logits[0].sigmoid()
        case "Sigmoid" | "Softmax":  # either name means both: one class has nothing to share with
            return lambda output: (
                output.logits[0].softmax(0) if output.logits.shape[1] > 1 else output.logits[0].sigmoid()
            )
    raise NotComputed(f"config.json names {named}")


def _pooling(folder: Path) -> Callable[[Any], Any]:
    """What makes one vector of a model's output, after sentence-transformers' modules.json."""
    from torch.nn.functional import normalize

    if not (folder / "modules.json").is_file():
        raise NotComputed("no modules.json says how it pools")
    modules = {module["type"]: module["path"] for module in _json(folder / "modules.json")}
    if unknown := sorted(set(modules) - {TRANSFORMER, POOLING, NORMALIZE}):
        raise NotComputed(f"modules.json names {', '.join(unknown)}")
    pool = _way(_json(folder / modules[POOLING] / "config.json") if POOLING in modules else {})
    if NORMALIZE not in modules:
        return lambda output: pool(output.last_hidden_state[0])
    return lambda output: normalize(pool(output.last_hidden_state[0]), dim=0)


def _way(asked: dict[str, Any]) -> Callable[[Any], Any]:
    chosen = [name for name, value in asked.items() if value is True and name.startswith("pooling_mode_")]
    if len(chosen) != 1 or chosen[0] not in WAYS:
        raise NotComputed(f"it pools by {', '.join(chosen) or 'no way that its modules tell'}")
    return WAYS[chosen[0]]


def _longest(folder: Path) -> int:
    path = folder / "sentence_bert_config.json"
    return (_json(path).get("max_seq_length") if path.is_file() else None) or LONGEST_TOKENS


def _json(path: Path) -> Any:
    return json.loads(path.read_text())
