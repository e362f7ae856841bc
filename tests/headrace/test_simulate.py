"""What a trace would meet in a fleet, side by side, for people and programs; and a line for what makes no sense."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from autoscaling import StepCosts
from cluster.step_work import Chunk
from headrace.failure import Failure
from headrace.simulate import Result, simulated
from headrace.simulate_asked import Asked, Options, check
from headrace.simulate_case import Case, trace
from headrace.simulate_json import to_json
from headrace.simulate_page import page
from headrace.simulate_runs import Job, played
from headrace.simulate_table import show
from headrace.simulate_words import COLUMNS
from headrace.step_file import to_json as to_steps
from simulation.outcome import Digest
from tests.headrace.plan_models import LLAMA_8B, SMALL, checkpoint

FLEET = """
models:
  - name: chat
    source: {source}
    engine: {{max_model_len: 4096, max_num_seqs: 64}}
    replicas: {{min: 1, max: 8}}
"""


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Options:
    """A minute of calm, one of many requests, and one of calm, with one that no engine takes."""
    folder = tmp_path_factory.mktemp("simulate")
    source = checkpoint(folder / "chat", LLAMA_8B)
    (folder / "fleet.yaml").write_text(FLEET.format(source=source))
    times = [*range(60), *(60 + number / 20 for number in range(1_200)), *range(120, 180)]
    rows = [f"{at_s},500,100" for at_s in times] + ["100,5000,1"]
    (folder / "trace.csv").write_text("arrival_s,prompt_tokens,output_tokens\n" + "\n".join(rows) + "\n")
    return Options(trace=str(folder / "trace.csv"), fleet=str(folder / "fleet.yaml"), gpu="l4", startup=20.0)


@pytest.fixture(scope="module")
def result(options: Options) -> Result:
    """Of one policy, and one more that was played here: no Ray is needed to look at two."""
    one = simulated(options, Console(quiet=True))
    case, run = one.case, one.runs[0]
    job = Job(
        asked=Asked(name="ray"), seed=0, trace=trace(options, case, seed=0)[0], setup=case.setup, targets=case.targets
    )
    return replace(one, runs=(run, replace(run, asked=job.asked, digest=played(job))))


def test_load_brings_replicas_and_their_hours_have_a_price(result: Result) -> None:
    summary = result.runs[0].digest.summary
    assert summary.requests == 1_320
    assert summary.most_replicas > 1
    assert summary.unanswered == 0
    assert result.price is not None
    assert result.runs[0].cost == pytest.approx(summary.device_hours * result.price.per_hour)
    assert any("1 of 1,321 requests have more than 4,096 tokens and were left out" in note for note in result.notes)


def test_programs_get_numbers_and_reasons(result: Result) -> None:
    told = json.loads(to_json(result))
    assert [run["policy"] for run in told["runs"]] == ["headrace", "ray"]
    assert told["device"] == "l4"
    assert 0 <= told["runs"][0]["attainment"] <= 1
    assert "engines busy" in told["runs"][0]["changes"][0]["reason"]
    assert len(told["runs"][0]["at_s"]) == len(told["runs"][0]["met"])


def test_people_get_a_table_and_a_page_that_loads_nothing(result: Result) -> None:
    console = Console(record=True, width=80)
    show(result, console)
    text = console.export_text()
    assert "chat on l4, TP 1 a replica" in text
    assert "ray" in text
    assert all(column in text for column in COLUMNS), "no figure is cut off"
    html = page(result)
    assert html.count("<svg") == 5
    assert "http" not in html.replace("http-equiv", "")
    assert page(result) == html


def test_every_policy_has_a_name_and_knobs_are_numbers() -> None:
    bare = Options(trace="t.csv")
    assert check(bare) == (Asked(name="headrace"),)
    assert len(check(replace(bare, policies=("all", "ray")))) == 9
    assert check(replace(bare, policies=("ray=8,keda",))) == (Asked(name="ray", knob=8.0), Asked(name="keda"))


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"policies": ("rai",)}, r"--policy: should be one of headrace, ray, .* got 'rai', did you mean ray\?"),
        ({"policies": ("ray=many",)}, "--policy: ray= should be followed by a number above 0, got 'many'"),
        ({"policies": ("headrace=2",)}, "--policy: headrace is set by `scaling` in the fleet file"),
        ({"scale": 0.0}, "--scale: should be above 0, got 0"),
        ({"startup": -1.0}, "--startup: should be a number from 0 on, got -1"),
        ({"fleet": "nowhere.yaml"}, "--fleet: nowhere.yaml"),
        ({"trace": "nowhere.csv"}, "--trace: nowhere.csv: no such file"),
        ({"model": "other"}, "--model: should be one of chat, got 'other'"),
        ({"gpu": "h1000"}, "--gpu: "),
    ],
)
def test_what_makes_no_sense_is_one_line(options: Options, changed: dict, complaint: str) -> None:
    with pytest.raises(Failure, match=complaint) as failure:
        simulated(replace(options, **changed), Console(quiet=True))
    assert failure.value.exit_code == 2


def test_a_fleet_with_a_variant_is_played_with_and_without_it(options: Options, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "chat", LLAMA_8B)
    small = checkpoint(tmp_path / "small", SMALL)
    model = FLEET.format(source=source).replace("max: 8", "max: 1")
    variant = f"    variants: [{{name: small, source: {small}, quality: 0.8}}]\n"
    (tmp_path / "fleet.yaml").write_text(model + variant)
    result = simulated(replace(options, fleet=str(tmp_path / "fleet.yaml")), Console(quiet=True))
    case = result.case
    assert [(form.name, form.quality) for form in case.variants] == [("chat", 1.0), ("small", 0.8)]
    whole, part = (run_of(case, options, name) for name in ("headrace", "alone"))
    assert result.runs[0].digest.summary == whole.summary
    assert whole.summary.attainment > part.summary.attainment
    assert {one.name for one in whole.summary.served if one.requests} == {"chat", "small"}
    assert part.summary.served == ()
    console = Console(record=True, width=200)
    show(result, console)
    assert "by small (0.8); quality 0." in console.export_text()
    assert "by small (0.8)" in page(result)


def test_steps_that_were_measured_go_before_the_cost_model(options: Options, tmp_path: Path) -> None:
    costs = StepCosts(step_s=0.03, sequence_s=0.001, prompt_token_s=0.0001)
    (tmp_path / "steps.json").write_text(to_steps({"chat": costs}))
    result = simulated(replace(options, steps=str(tmp_path / "steps.json")), Console(quiet=True))
    step = result.case.setup.step
    chunks = [Chunk(new_tokens=1, context_tokens=500, count=4), Chunk(new_tokens=300, context_tokens=0)]
    assert step(chunks) == pytest.approx(0.03 + 4 * 0.001 + 300 * 0.0001)
    assert result.runs[0].digest.summary.token_s["p50"] > 0.03
    assert json.loads(to_json(result))["times_by"] == f"measured steps, {tmp_path / 'steps.json'}"
    assert not any("not measured" in note for note in result.notes)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "no such file"),
        ("steps", "should hold"),
        ("[]", "should hold"),
        ('{"chat": {"step_s": 1}}', "should hold"),
        ('{"chat": {"step_s": -1, "sequence_s": 0, "prompt_token_s": 0}}', "costs must be seconds >= 0"),
        (
            '{"other": {"step_s": 1, "sequence_s": 0, "prompt_token_s": 0}}',
            "--steps: should tell of chat, tells of other",
        ),
    ],
)
def test_a_file_of_steps_that_makes_no_sense_is_one_line(
    options: Options, tmp_path: Path, text: str | None, complaint: str
) -> None:
    if text is not None:
        (tmp_path / "steps.json").write_text(text)
    with pytest.raises(Failure, match=complaint) as failure:
        simulated(replace(options, steps=str(tmp_path / "steps.json")), Console(quiet=True))
    assert failure.value.exit_code == 2


def test_a_variant_of_unknown_quality_is_refused(options: Options, tmp_path: Path) -> None:
    source = checkpoint(tmp_path / "chat", LLAMA_8B)
    (tmp_path / "fleet.yaml").write_text(
        FLEET.format(source=source) + f"    variants: [{{name: copy, source: {source}}}]\n"
    )
    with pytest.raises(Failure, match=r"chat-copy: quality: is missing, and so is a report"):
        simulated(replace(options, fleet=str(tmp_path / "fleet.yaml")), Console(quiet=True))


def run_of(case: Case, options: Options, policy: str) -> Digest:
    return played(
        Job(
            asked=Asked(name=policy),
            seed=0,
            trace=trace(options, case, seed=0)[0],
            setup=case.setup,
            targets=case.targets,
            variants=case.variants,
        )
    )
