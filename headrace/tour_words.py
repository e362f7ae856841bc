"""How is a tour told? A heading and a few plain lines for each step, and the command that would do the same."""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from rich.text import Text

from headrace.steps import Steps
from headrace.tour_files import TourFolder

MINUTE_S = 60.0
HELLO = (
    "A tour of Headrace with the sample model (SmolLM2, 135 M parameters) on this machine: plan, compress, serve, ask, "
    "simulate. It takes up to 10 minutes on two cores. Ctrl-C ends it and leaves no process behind."
)
TITLES = {
    "plan": "1 of 5. Plan: what would the model need, before anything is loaded?",
    "compress": "2 of 5. Compress: how much smaller does it get, and what does it lose?",
    "serve": "3 of 5. Serve: the model, and its smaller form as a variant",
    "prompts": "4 of 5. Prompts: how fast are the answers?",
    "simulate": "5 of 5. Simulate: what if twice as many came as the model can bear?",
}
TEXTS = {
    "plan": "Only the shapes of the tensors are read. Times follow from what each device can do: this machine, and one "
    "rented GPU; the model as it is, and with 8-bit weights. 500 requests come each second, and are promised a first "
    "token within 2 s and two each second after that.",
    "compress": "Weights and activations are rounded to 8 bits. vLLM loads the result in a fresh process, and it is "
    "believed only if vLLM computes what the compressor computed. Then parent and artefact are measured in vLLM, in "
    "turns. This is the longest step: minutes the first time, seconds after that, since what is finished is kept.",
    "serve": "Ray starts on loopback, and the model and its variant each get an engine. No engine takes a request "
    "before its numbers were checked. Clients ask for smollm2; a header of the answer names the variant that gave it.",
    "prompts": "24 requests over HTTP, 8 at a time: each of 12 questions once as it is, and once with the header "
    "x-headrace-prefer: cost. The model itself answers the former, but while it is overloaded the variant does.",
    "simulate": "The prompts just sent are the trace: repeated for 5 minutes, with twice the requests that the model "
    "alone can answer within what was promised, through the same fleet on a virtual clock, whose engines take as long "
    "for a step as they just did. `headrace` is the fleet as it is; `alone` is the model without its variant, and so "
    "without that engine.",
}
COMMANDS = {
    "plan": "headrace plan smollm2 --gpu auto --gpu l4 --quantization w8a8 --context 2048 --rate 500 --in 64 --out 48 "
    "--ttft 2 --tpot 0.5",
    "compress": "headrace compress {recipe} --out {artefacts}",
    "serve": "headrace serve {fleet}",
    "prompts": "headrace chat smollm2, or any OpenAI client",
    "simulate": "headrace simulate --trace {trace} --fleet {fleet} --steps {steps} --policy headrace,alone "
    "--scale {scale} --tile 300",
}


@dataclass
class Telling:
    """What is said of a tour, and the figures that its steps have shown so far."""

    folder: TourFolder
    steps: Steps
    figures: dict[str, Any] = field(default_factory=dict)
    begun_s: float = field(default_factory=monotonic)

    def hello(self) -> None:
        """What will happen."""
        self.steps.console.print(Text(f"{HELLO} What it makes lies in {self.folder.path}."))

    def heading(self, name: str, **found: str) -> None:
        """What a step is for, and how its user would do it, with what an earlier step found."""
        folder = self.folder
        command = COMMANDS[name].format(
            recipe=folder.recipe,
            artefacts=folder.artefacts,
            fleet=folder.fleet,
            trace=folder.trace,
            steps=folder.steps,
            **found,
        )
        self.steps.console.print(Text(f"\n{TITLES[name]}", "bold"))
        self.steps.console.print(Text(TEXTS[name]))
        self.steps.say(f"  by hand: {command}\n")

    def step(self, name: str, do: Callable[[], dict[str, Any]], **found: str) -> dict[str, Any]:
        """A step from its heading to its figures, which are kept and returned."""
        self.heading(name, **found)
        begun_s = monotonic()
        found = do()
        self.keep(name, {"took_s": monotonic() - begun_s, **found})
        return found

    def keep(self, name: str, found: dict[str, Any]) -> None:
        """Writes a step's figures down beside the others."""
        self.figures[name] = found
        self.folder.keep(self.figures)

    def interrupted(self) -> None:
        """What stays of a tour that was cut off."""
        self.steps.say(
            f"! interrupted: what is compressed is kept, `headrace tour --out {self.folder.path}` goes on from there"
        )

    def goodbye(self) -> None:
        """What it was, and what can be done with it."""
        folder, minutes = self.folder, (monotonic() - self.begun_s) / MINUTE_S
        self.steps.say(
            f"\nThat was the tour, in {minutes:.1f} min. In {folder.path}: the recipe, the artefact with its report,\n"
            f"the fleet file, the trace, and every figure in {folder.figures.name}. To go on:\n"
            f"  headrace serve {folder.fleet}\n"
            f"  headrace compress show {folder.artefact}\n"
            "  headrace init                    # a fleet file of your own\n"
        )
