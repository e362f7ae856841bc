"""What does a step of each engine cost, by measurement? A JSON file, written and read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from autoscaling import StepCosts
from cluster.step_work import Chunk
from headrace.failure import bad_input


@dataclass(frozen=True, slots=True)
class MeasuredStep:
    """How long a step takes, by costs that were measured; as cluster.service.StepSeconds."""

    costs: StepCosts

    def __call__(self, chunks: Sequence[Chunk]) -> float:
        """Of chunks: one new token is an answer's next, more are a prompt's."""
        costs = self.costs
        sequences = sum(chunk.count for chunk in chunks if chunk.new_tokens <= 1)
        read = sum(chunk.new_tokens * chunk.count for chunk in chunks if chunk.new_tokens > 1)
        return costs.step_s + costs.sequence_s * sequences + costs.prompt_token_s * read


def to_json(costs: Mapping[str, StepCosts]) -> str:
    """The file's text: costs by the engine's name, as `headrace status` has it."""
    return json.dumps({name: asdict(each) for name, each in costs.items()}, indent=1) + "\n"


def read(given: str) -> dict[str, StepCosts]:
    """What `to_json` wrote. Raises Failure."""
    path = Path(given).expanduser()
    try:
        values = json.loads(path.read_text())
        return {name: StepCosts(**found) for name, found in values.items()}
    except OSError as error:
        raise bad_input(f"--steps: {path}: {(error.strerror or str(error)).lower()}") from None
    except (ValueError, TypeError, AttributeError) as error:
        wanted = '{"ENGINE": {"step_s": S, "sequence_s": S, "prompt_token_s": S}}'
        raise bad_input(f"--steps: {path}: should hold {wanted}: {error}") from None
