"""Of which tensors does transformers make a model? Built on the meta device: no weights.

Reads a JSON list of config.json from stdin, writes a line of JSON for each: names and shapes.
"""

import json
import sys

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText


def main() -> None:
    for config in json.load(sys.stdin):
        kind = AutoModelForImageTextToText if "text_config" in config else AutoModelForCausalLM
        rest = {key: value for key, value in config.items() if key != "model_type"}
        with torch.device("meta"):
            model = kind.from_config(AutoConfig.for_model(config["model_type"], **rest))
        # One that is tied is in the dictionary twice, and is the same object.
        tensors = {id(tensor): [name, list(tensor.shape)] for name, tensor in _held(model)}
        print(json.dumps({"tensors": sorted(tensors.values())}), flush=True)


def _held(model: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    """The first name last, so that it stays."""
    return list(reversed(model.state_dict(keep_vars=True).items()))


if __name__ == "__main__":
    main()
