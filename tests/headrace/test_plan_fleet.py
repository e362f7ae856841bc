"""`headrace plan fleet.yaml` plans each model with its variants, by the promises and arguments of the file."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.failure import Failure
from tests.headrace.plan_models import LLAMA_8B, SMALL, checkpoint
from tests.headrace.report_samples import w8a8

pytestmark = pytest.mark.usefixtures("own_folders")

Run = Callable[..., str]
FLEET = """
models:
  - name: chat
    source: {chat}
    engine: {{max_model_len: 4096, max_num_seqs: 64, enable_prefix_caching: false}}
    replicas: {{min: 1, max: 4}}
    variants:
      - {{name: narrow, source: {narrow}, replicas: {{min: 0, max: 2}}}}
      - {{name: told, source: {narrow}, quality: 0.5, tensor_parallel: 2}}
  - name: other
    source: {other}
scaling: {{ttft_s: 0.7, token_s: 0.09}}
"""
NARROW = LLAMA_8B | {"intermediate_size": 7168}
LOAD = ("--gpu", "l4", "--rate", 2, "--in", 500, "--out", 100)


@pytest.fixture
def fleet(tmp_path: Path) -> Path:
    """One model with two variants, one of which has a report, and a small model."""
    chat, narrow = checkpoint(tmp_path / "chat", LLAMA_8B), checkpoint(tmp_path / "narrow", NARROW)
    (narrow / "report.json").write_text(w8a8().model_dump_json())
    other = checkpoint(tmp_path / "other", SMALL)
    (tmp_path / "fleet.yaml").write_text(FLEET.format(chat=chat, narrow=narrow, other=other))
    return tmp_path / "fleet.yaml"


def words(text: str) -> str:
    """Without line ends, so that wrapping does not matter."""
    return re.sub(r"\s+", " ", text)


def planned(run: Run, *options: object) -> dict[str, Any]:
    return json.loads(run(*options, "--json"), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_variants_stand_beside_their_model_with_bytes_replicas_devices_cost_and_quality(run: Run, fleet: Path) -> None:
    text = run(fleet, *LOAD, "--model", "chat")
    assert re.search(r"^on +GiB +devices +ms/token +tokens/s +replicas +USD/M +quality *$", text, re.MULTILINE)
    assert re.search(r"^l4, chat +15\.0 +\d+ .* 1 *$", text, re.MULTILINE)
    ratio = next(one.ratio for one in w8a8().quality if one.executor == "vllm")
    quality = rf"{1 / ratio.value:.3f} \({1 / ratio.high:.2f}-{1 / ratio.low:.2f}\)"
    assert re.search(rf"^l4, narrow +[\d.]+ +\d+ .* {quality} *$", text, re.MULTILINE)
    assert re.search(r"^l4, told .* 0\.500 *$", text, re.MULTILINE)
    assert max(map(len, text.splitlines())) <= 80


def test_each_model_is_planned_at_the_rate_by_the_file_s_promises_and_arguments(run: Run, fleet: Path) -> None:
    found = planned(run, fleet, *LOAD[:4], "--in", 50, "--out", 20)
    chat, other = found["models"]
    assert (found["fleet"], chat["model"]["name"], other["model"]["name"]) == (str(fleet), "chat", "other")
    assert chat["load"]["ttft_target_s"] == other["load"]["ttft_target_s"] == 0.7
    assert (chat["load"]["token_target_s"], chat["load"]["requests_per_s"]) == (0.09, 2.0)
    assert (chat["load"]["context_tokens"], other["load"]["context_tokens"]) == (4096, 256)
    assert all(plan["engine"]["max_sequences"] == 64 for plan in chat["plans"])
    assert any("promises are those of `scaling`" in note for note in chat["notes"])
    assert "the plan does not follow engine.enable_prefix_caching" in chat["notes"]


def test_promises_of_the_command_line_go_before_the_file_s(run: Run, fleet: Path) -> None:
    found = planned(run, fleet, *LOAD, "--model", "chat", "--ttft", 3, "--tpot", 0.5, "--context", 2048)
    (chat,) = found["models"]
    assert (chat["load"]["ttft_target_s"], chat["load"]["token_target_s"]) == (3.0, 0.5)
    assert {plan["engine"]["context_tokens"] for plan in chat["plans"]} == {2048}
    assert not any("promises are those" in note for note in chat["notes"])


def test_the_layout_is_the_file_s(run: Run, fleet: Path) -> None:
    (chat,) = planned(run, fleet, *LOAD, "--model", "chat")["models"]
    fits = [plan["replica"]["fit"] for plan in chat["plans"]]
    assert [fit["tensor"] for fit in fits] == [1, 1, 2]


def test_what_the_file_s_replicas_carry_is_told_without_and_with_variants(run: Run, fleet: Path) -> None:
    (chat,) = planned(run, fleet, *LOAD, "--model", "chat")["models"]
    served = [plan["variant"]["served"] for plan in chat["plans"]]
    assert [one["most_replicas"] for one in served] == [4, 2, 1]
    alone, narrow, told = (one["most_requests_per_s"] for one in served)
    assert narrow / 2 > alone / 4 > 0
    text = words(run(fleet, *LOAD, "--model", "chat"))
    carried = re.search(r"l4: all replicas that the file allows carry ([\d.]+)/s of chat alone, ([\d.]+)/s with", text)
    assert carried is not None
    assert float(carried[1]) == pytest.approx(alone, rel=0.01)
    assert float(carried[2]) == pytest.approx(alone + narrow + told, rel=0.01)
    assert re.search(r"on as many devices as chat takes for 2/s \(\d+\): chat [\d.]+/s, narrow [\d.]+/s, told", text)


def test_without_a_rate_nothing_is_promised_or_carried(run: Run, fleet: Path) -> None:
    (chat,) = planned(run, fleet, "--gpu", "l4", "--model", "chat")["models"]
    assert chat["load"]["ttft_target_s"] is None
    assert all(plan["variant"]["served"]["most_requests_per_s"] is None for plan in chat["plans"])
    assert "carry" not in run(fleet, "--gpu", "l4", "--model", "chat")


def test_a_model_without_variants_is_planned_alone(run: Run, fleet: Path) -> None:
    text = run(fleet, "--gpu", "l4", "--model", "other")
    assert text.startswith("other: LlamaForCausalLM")
    assert "all replicas that the file allows" not in words(text)


def test_a_page_shows_one_model(run: Run, fleet: Path, tmp_path: Path) -> None:
    run(fleet, *LOAD, "--model", "chat", "--html", tmp_path / "plan.html")
    html = (tmp_path / "plan.html").read_text()
    assert "Share of the model&#39;s quality" in html
    assert "all replicas that the file allows" in html


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--model", "chart"), "--model: should be one of chat, other, got 'chart'"),
        (("--variants", "."), "--variants: goes with a MODEL; of a fleet file the model and its variants are planned"),
        (("--quantization", "fp8"), "--quantization: goes with a MODEL"),
        (("--train", "distil"), "--train: goes with a MODEL"),
        (("--gpu", "l4", "--html", "plan.html"), "--html: a page shows one model: name one with --model (chat, other)"),
        (("--context", 300), "--context: should be 1 to the model's 256, got 300"),
    ],
)
def test_wrong_options_are_refused_in_one_line(run: Run, fleet: Path, options: tuple[object, ...], line: str) -> None:
    with pytest.raises(Failure) as refused:
        run(fleet, *options)
    assert str(refused.value).startswith(line)
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ("max_num_seqs: 64", "max_num_seqs: many", "engine.max_num_seqs: only a whole number above 0 can be planned"),
        ("source: {narrow}, quality: 0.5", "source: {other}", "chat-told: quality: is missing, and so is a report"),
        ("ttft_s: 0.7", "ttft: 0.7", "fleet.yaml: scaling.ttft: unknown field"),
        ("name: other\n    source: {other}", "name: other\n    source: nowhere", "fleet.yaml: other: 'nowhere' is no"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fleet: Path, before: str, after: str, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    text, places = fleet.read_text(), {name: str(tmp_path / name) for name in ("narrow", "other")}
    changed = text.replace(before.format(**places), after.format(**places))
    assert changed != text
    Path("fleet.yaml").write_text(changed)
    with pytest.raises(Failure, match=re.escape(line)) as refused:
        run("fleet.yaml", *LOAD[:4], "--in", 50, "--out", 20)
    assert refused.value.exit_code == 2


def test_only_a_fleet_has_several_models(run: Run, tmp_path: Path) -> None:
    with pytest.raises(Failure, match="--model: names one of a fleet file's models") as refused:
        run(checkpoint(tmp_path / "small", SMALL), "--model", "chat")
    assert refused.value.exit_code == 2
