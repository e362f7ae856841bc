"""Which files does a tour make, and where? Each of them is what its user could have written."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from headrace.failure import bad_input
from headrace.whole_file import write_whole

MODEL = "smollm2"
ARTEFACT = f"{MODEL}-tour"
RECIPE = Template(f"""\
# Weights and activations in fewer bits, rounded to the nearest. Judged on little text, in few rounds: this is a tour.
name: {ARTEFACT}
source: {MODEL}
steps:
  - {{do: quantize, scheme: $scheme}}
calibration: {{blocks: 1, tokens: 128}}
evaluation: {{blocks: 8, tokens: 128}}
tasks: []
speed: {{rounds: 5, batches: [4], prompt_tokens: 128, output_tokens: 16}}
""")
FLEET = Template(f"""\
# The sample model, and what it was compressed to as a cheaper variant. Each has an engine of its own.
models:
  - name: {MODEL}
    source: {MODEL}
    engine: {{max_model_len: 2048, max_num_seqs: 8, kv_cache_memory_bytes: 268435456}}
    variants:
      - name: $variant
        source: $artefact
router:
  port: $port
scaling:
  ttft_s: 2       # what users are promised: their first token,
  token_s: 0.5    # and each one after that
""")


@dataclass(frozen=True)
class TourFolder:
    """The folder of one tour."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.yaml"

    @property
    def artefacts(self) -> Path:
        return self.path / "artefacts"

    @property
    def artefact(self) -> Path:
        return self.artefacts / ARTEFACT

    @property
    def fleet(self) -> Path:
        return self.path / "fleet.yaml"

    @property
    def trace(self) -> Path:
        return self.path / "trace.csv"

    @property
    def steps(self) -> Path:
        """What steps of each engine cost."""
        return self.path / "steps.json"

    @property
    def figures(self) -> Path:
        """What each step has shown, as JSON."""
        return self.path / "tour.json"

    def begin(self) -> None:
        """Makes the folder, or takes that of an earlier tour. Raises Failure rather than touch any other."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not self.figures.exists() and any(self.path.iterdir()):
                raise bad_input(f"--out: {self.path} holds something that no tour made: name another folder")
        except OSError as error:
            raise bad_input(f"--out: {self.path}: {(error.strerror or str(error)).lower()}") from None
        self.keep({})

    def keep(self, figures: dict[str, Any]) -> None:
        """Writes what the steps have shown so far. Raises Failure."""
        self.write(self.figures, json.dumps(figures, indent=1) + "\n")

    def write(self, path: Path, text: str) -> None:
        """Writes one of its files, whole. Raises Failure."""
        try:
            write_whole(path, text)
        except OSError as error:
            raise bad_input(f"--out: {path}: {(error.strerror or str(error)).lower()}") from None


def recipe(scheme: str) -> str:
    """The text of a recipe that quantizes so."""
    return RECIPE.substitute(scheme=scheme)


def fleet(artefact: Path, variant: str, port: int) -> str:
    """The text of a fleet file that serves the artefact as a variant."""
    # As JSON, which is YAML too: a path may hold what would mean something there.
    return FLEET.substitute(artefact=json.dumps(str(artefact)), variant=variant, port=port)


def trace(requests: Sequence[tuple[float, int, int]]) -> str:
    """The text of a trace: seconds from the first, tokens of prompt and answer."""
    begun_s = min(at_s for at_s, _, _ in requests)
    rows = [f"{at_s - begun_s:.3f},{prompt},{output}" for at_s, prompt, output in sorted(requests)]
    return "\n".join(["arrival_s,prompt_tokens,output_tokens", *rows]) + "\n"
