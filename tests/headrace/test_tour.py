"""A tour makes files that the commands take, tells steps that can be typed, and touches no folder but its own."""

import io
import json
import shlex
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from rich.console import Console

from autoscaling import StepCosts
from compress import recipe as recipes
from deployments import fleet as fleets
from deployments import yaml_text
from headrace import plan, simulate, step_file, tour_files, tour_load, tour_prompts, tour_steps
from headrace.ask import Answer, AnswerFailed
from headrace.cli import app
from headrace.failure import Failure
from headrace.plan_asked import Options as PlanOptions
from headrace.simulate_asked import Options as SimulateOptions
from headrace.steps import Steps
from headrace.tour import Options, tour
from headrace.tour_files import TourFolder
from headrace.tour_prompts import COST, Prompt
from headrace.tour_words import COMMANDS, TEXTS, TITLES, Telling
from simulation.trace import read as read_trace
from tests.compress.decoders import machine
from tests.headrace.plan_models import SMALL, checkpoint

TWO_HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1}
STEPS = ("plan", "compress", "serve", "prompts", "simulate")


def options(folder: Path, port: int = 1) -> Options:
    return Options(out=str(folder), port=port, name="tour", keep=False)


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADRACE_STATE", str(tmp_path / "state"))


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "fleet.yaml").write_text("mine")
    with pytest.raises(Failure, match=r"--out: .*mine holds something that no tour made") as refused:
        TourFolder(tmp_path / "mine").begin()
    assert refused.value.exit_code == 2
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["fleet.yaml"]


def test_a_folder_that_can_t_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Failure, match=r"^--out: .*file: file exists$") as refused:
        TourFolder(tmp_path / "file").begin()
    assert refused.value.exit_code == 2


def test_a_tour_goes_on_in_the_folder_of_an_earlier_one(tmp_path: Path) -> None:
    folder = TourFolder(tmp_path / "tour")
    folder.begin()
    folder.keep({"plan": {"took_s": 1.0}})
    folder.begin()
    assert json.loads(folder.figures.read_text()) == {}


def test_a_port_in_use_is_told_before_anything_is_made(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        with pytest.raises(Failure, match=r"^port \d+ is in use by"):
            tour(options(tmp_path / "tour", holder.getsockname()[1]))
    assert not (tmp_path / "tour").exists()


def test_what_is_typed_wrong_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="--name: should be letters") as refused:
        tour(Options(out=str(tmp_path / "tour"), port=1, name="a/b", keep=False))
    assert refused.value.exit_code == 2


@pytest.mark.parametrize("scheme", ["w8a8", "fp8", "w4a16"])
def test_the_recipe_is_one_that_compress_takes(scheme: str) -> None:
    found = recipes.validate(yaml_text.parse(tour_files.recipe(scheme)))
    assert (found.name, found.source, found.tasks) == ("smollm2-tour", "smollm2", ())


def test_the_fleet_file_is_one_that_serve_takes_wherever_it_lies() -> None:
    folder = Path("/tmp/it's {odd}: #1")
    (model,) = fleets.validate(yaml_text.parse(tour_files.fleet(folder, "w8a8", 8001))).models
    (variant,) = model.variants
    assert (model.name, variant.name, variant.source) == ("smollm2", "w8a8", str(folder))


def test_the_trace_is_one_that_simulate_reads(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text(tour_files.trace([(3.5, 40, 20), (2.0, 41, 48)]))
    found = read_trace(tmp_path / "trace.csv")
    assert found.at_s.tolist() == [0.0, 1.5]
    assert (found.prompt_tokens.tolist(), found.output_tokens.tolist()) == ([41, 40], [48, 20])


def test_the_scheme_is_the_one_that_this_machine_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parent, folder = checkpoint(tmp_path / "small", SMALL | TWO_HEADS), TourFolder(tmp_path)
    here = machine(features="avx2", gpus=("GPU 0: NVIDIA B200 (UUID: GPU-1)",))
    assert tour_steps.job(parent, folder, machine(features="avx2")).recipe.steps[0].scheme == "w8a8"  # type: ignore[union-attr]
    monkeypatch.setattr("compress.preflight._installed", lambda package: False)
    assert tour_steps.job(parent, folder, here).recipe.steps[0].scheme == "fp8"  # type: ignore[union-attr]
    assert "scheme: fp8" in folder.recipe.read_text()


def test_a_machine_that_serves_no_scheme_is_refused(tmp_path: Path) -> None:
    parent = checkpoint(tmp_path / "small", SMALL | TWO_HEADS)
    with pytest.raises(Failure, match=r"^smollm2-tour: steps\[0\].scheme: w8a8 can't be served") as refused:
        tour_steps.job(parent, TourFolder(tmp_path), machine(features="sse2"))
    assert refused.value.exit_code == 2


def test_each_step_has_a_heading_plain_lines_and_the_command_that_does_the_same(tmp_path: Path) -> None:
    output = io.StringIO()
    told = Telling(TourFolder(tmp_path), Steps(Console(file=output, width=100)))
    assert tuple(TITLES) == tuple(TEXTS) == tuple(COMMANDS) == STEPS
    for name in STEPS:
        told.heading(name, scale="2")
    assert output.getvalue().count("  by hand: headrace ") == len(STEPS)
    assert str(tmp_path / "fleet.yaml") in output.getvalue()


def test_figures_of_each_step_are_written_as_they_come(tmp_path: Path) -> None:
    folder = TourFolder(tmp_path / "tour")
    folder.begin()
    told = Telling(folder, Steps(Console(file=io.StringIO())))
    assert told.step("plan", lambda: {"replicas": 2}) == {"replicas": 2}
    with pytest.raises(KeyboardInterrupt):
        told.step("compress", _interrupted)
    kept = json.loads(folder.figures.read_text())
    assert list(kept) == ["plan"]
    assert kept["plan"]["replicas"] == 2
    assert kept["plan"]["took_s"] >= 0


def test_the_commands_that_are_named_do_what_the_steps_do(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[PlanOptions | SimulateOptions] = []
    monkeypatch.setattr(plan, "command", lambda options, **_: asked.append(options))
    monkeypatch.setattr(simulate, "command", lambda options, **_: asked.append(options))
    for name in ("plan", "simulate"):
        words = shlex.split(COMMANDS[name].format(trace="trace.csv", fleet="fleet.yaml", steps="s.json", scale="2.5"))
        app(words[1:], standalone_mode=False)
    planned, simulated = asked
    assert planned == tour_steps.PLAN
    assert isinstance(simulated, SimulateOptions)
    assert (simulated.scale, simulated.tile, simulated.steps) == (2.5, tour_steps.LASTS_S, "s.json")
    assert simulated.startup == tour_steps.STARTUP_S


def test_every_question_is_asked_both_ways_and_figures_are_by_who_answered() -> None:
    with _fleet() as url:
        prompts, seconds = tour_prompts.batch(url, "smollm2", at_once=4, max_tokens=8, tell=lambda done: None)
        assert tour_prompts.reasons(url) == {("smollm2", "best"): 12, ("w8a8", "cost"): 12}
    each = tour_prompts.by_variant(prompts, seconds)
    assert {name: figures.requests for name, figures in each.items()} == {"smollm2": 12, "w8a8": 12}
    assert {prompt.question for prompt in prompts} == set(tour_prompts.QUESTIONS)
    assert all((prompt.answer.variant == "w8a8") == (prompt.headers == COST) for prompt in prompts)
    assert all((prompt.answer.prompt_tokens, prompt.answer.tokens) == (30, 3) for prompt in prompts)
    assert each["w8a8"].tokens == 36
    assert each["w8a8"].tokens_per_s == pytest.approx(36 / seconds)


@pytest.mark.parametrize("both", [True, False])
def test_a_variant_that_is_still_starting_is_waited_for(both: bool) -> None:
    with _fleet(both=both) as url:
        assert tour_prompts.all_serve(url, "smollm2") is both


def test_a_fleet_that_refuses_ends_the_batch() -> None:
    with _fleet(status=503) as url, pytest.raises(AnswerFailed, match="503: full"):
        tour_prompts.batch(url, "smollm2", at_once=4, max_tokens=8, tell=lambda done: None)


def test_medians_and_the_longest_are_of_the_answers() -> None:
    answers = [Answer(first_s=first, last_s=first + 2.0, tokens=tokens) for first, tokens in ((1, 3), (2, 5), (6, 1))]
    found = tour_prompts.figures([Prompt(question="", headers={}, sent_s=0.0, answer=one) for one in answers], 10.0)
    assert (found.tokens, found.tokens_per_s) == (9, 0.9)
    assert (found.ttft_p50_s, found.ttft_most_s, found.token_p50_s) == (2, 6, 0.75)


def test_what_steps_cost_is_found_from_what_clients_saw() -> None:
    """Answers of an engine whose costs are known, one after the other and four at once."""
    known = StepCosts(step_s=0.04, sequence_s=0.01, prompt_token_s=0.001)
    first_s = known.step_s + known.sequence_s + known.prompt_token_s * 40
    alone = _prompt(0.0, first_s, first_s + 23 * (known.step_s + known.sequence_s), tokens=24)
    together = [_prompt(0.0, 0.2, 0.2 + 30 * (known.step_s + count * known.sequence_s), tokens=31) for count in [4] * 4]
    found = tour_load.costs([alone], together)
    assert found is not None
    assert found.step_s == pytest.approx(known.step_s, rel=0.02)
    assert found.sequence_s == pytest.approx(known.sequence_s, rel=0.02)
    assert found.prompt_token_s == pytest.approx(known.prompt_token_s, rel=0.02)


def test_prompts_that_are_read_meanwhile_are_not_taken_for_slow_answers() -> None:
    known = StepCosts(step_s=0.04, sequence_s=0.01, prompt_token_s=0.001)
    reading_s = known.prompt_token_s * 40
    long = _prompt(0.0, 0.1, 0.1 + 60 * (known.step_s + 2 * known.sequence_s) + 3 * reading_s, tokens=61)
    others = [_prompt(at_s, at_s + 0.1, at_s + 0.1 + 1.2, tokens=21) for at_s in (0.05, 1.3, 2.55)]
    found = tour_load.costs([], [long, *others])
    assert found is not None
    assert found.step_s + 2 * found.sequence_s == pytest.approx(0.06, rel=0.1)


def test_no_answer_of_more_than_a_token_tells_no_costs() -> None:
    assert tour_load.costs([], [_prompt(0.0, 0.1, 0.1, tokens=1)]) is None
    assert tour_load.costs([], []) is None


def test_the_load_is_twice_what_the_model_alone_bears_and_its_variant_makes_the_difference(tmp_path: Path) -> None:
    folder = _served_folder(tmp_path)
    load = tour_steps.simulation(folder)
    output = io.StringIO()
    found = tour_steps.simulated(load, Console(file=output, width=140))
    # Eight answers of 40 tokens at once, in steps of 120 ms and eight prompts read meanwhile: 1.6 requests a second.
    assert found["headrace"]["requests"] / tour_steps.LASTS_S == pytest.approx(3.2, rel=0.15)
    assert found["headrace"]["in_time_per_s"] > 1.5 * found["alone"]["in_time_per_s"]
    assert found["headrace"]["answered"]["w8a8"] > 0
    assert "measured steps" in found["times_by"]
    assert "requests a second with the variant" in output.getvalue()


def _served_folder(tmp_path: Path) -> TourFolder:
    """As a tour leaves it before its last step."""
    folder, model = TourFolder(tmp_path), checkpoint(tmp_path / "small", SMALL | TWO_HEADS)
    text = tour_files.fleet(model, "w8a8", 8001).replace("source: smollm2", f"source: {model}")
    folder.write(folder.fleet, text.replace("- name: w8a8", "- name: w8a8\n        quality: 0.97"))
    folder.write(folder.trace, tour_files.trace([(number / 2, 40, 40) for number in range(24)]))
    costs = StepCosts(step_s=0.04, sequence_s=0.01, prompt_token_s=0.0005)
    folder.write(folder.steps, step_file.to_json({"smollm2": costs, "smollm2-w8a8": replace(costs, step_s=0.02)}))
    return folder


def _prompt(sent_s: float, first_s: float, last_s: float, *, tokens: int) -> Prompt:
    """One whose times are by the batch's clock."""
    answer = Answer(first_s=first_s - sent_s, last_s=last_s - sent_s, tokens=tokens, prompt_tokens=40)
    return Prompt(question="", headers={}, sent_s=sent_s, answer=answer)


def _interrupted() -> dict[str, object]:
    raise KeyboardInterrupt


@contextmanager
def _fleet(status: int = 200, both: bool = True) -> Iterator[str]:
    """The URL of what answers as a router of two variants does, without a model."""
    choice, usage = '{"choices": [{"delta": {"content": "word "}}]}', '{"prompt_tokens": 30, "completion_tokens": 3}'
    events = [choice, choice, choice, f'{{"choices": [], "usage": {usage}}}', "[DONE]"]
    stream = "".join(f"data: {event}\n\n" for event in events)
    counted = 'headrace_variant_requests_total{{of="smollm2",variant="{}",model="m",why="{}"}} 12.0\n'
    card = json.dumps({"variants": [{"name": "smollm2", "ready": True}, {"name": "w8a8", "ready": both}]})
    metrics = "# TYPE headrace_variant_requests counter\n"
    metrics += counted.format("smollm2", "best") + counted.format("w8a8", "cost")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(200, metrics if self.path == "/metrics" else card)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.reply(status, stream if status == 200 else '{"error": {"message": "full"}}')

        def reply(self, status: int, text: str) -> None:
            self.send_response(status)
            variant = "w8a8" if self.headers.get("x-headrace-prefer") == "cost" else "smollm2"
            self.send_header("x-headrace-variant", variant)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()
            thread.join()
