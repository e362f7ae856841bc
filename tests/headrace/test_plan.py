"""`headrace plan` answers what a buyer asks, in a terminal, as JSON, and refuses what it can't answer in one line."""

import json
import re
from collections.abc import Callable
from math import ceil
from pathlib import Path
from typing import Any

import pytest

from cluster.calibration import Calibration, Residual, identity, to_json
from cluster.model_config import read
from cluster.step_time import Coefficients
from headrace.failure import Failure
from tests.headrace.plan_models import LLAMA_8B, LLAMA_70B, SMALL, checkpoint
from tests.headrace.report_samples import w8a8

pytestmark = pytest.mark.usefixtures("own_folders")

Run = Callable[..., str]
PRICES = """
currency: EUR
devices:
  h100: {per_hour: 2.0, date: 2026-01-01, source: us}
"""


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    return checkpoint(tmp_path / "llama", LLAMA_8B)


def words(text: str) -> str:
    """Without line ends, so that wrapping does not matter."""
    return re.sub(r"\s+", " ", text)


def planned(run: Run, *options: object) -> dict[str, Any]:
    return json.loads(run(*options, "--json"), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_a_model_that_fits_is_told_by_part_with_what_limits_it(run: Run, llama: Path) -> None:
    text = run(llama, "--gpu", "h100", "--context", "8192")
    assert "yes, on one h100 with a context of 8,192 tokens" in words(text)
    assert "TP 1, 2, 4 or 8 holds it; not 3, 5, 6 or 7: 32 heads don't divide by it" in words(text)
    assert re.search(r"weights\s+14\.96", text)
    assert "limit: arithmetic" in words(text)
    assert "limit: reading weights" in words(text)
    assert "by data sheet, in bf16; 9 of 10 are expected within a factor of" in words(text)
    assert max(map(len, text.splitlines())) <= 80


def test_a_model_that_does_not_fit_is_told_what_would_help(run: Run, tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "large", LLAMA_70B)
    text = words(run(folder, "--gpu", "h100", "--context", "8192"))
    assert "not on one h100: " in text
    assert "GiB are missing for a context of 8,192 tokens; on 2 x h100 (TP 2) it does" in text
    assert re.search(r"To fit w8a8 weights: [\d.]+ sequences w4a16 weights: [\d.]+ sequences 2 devices \(TP 2\)", text)


def test_a_device_that_is_too_small_says_so_and_needs_nothing_more(run: Run, llama: Path) -> None:
    found = planned(run, llama, "--gpu", "4gb")
    (plan,) = found["plans"]
    assert plan["fits_on_one"] is False
    assert plan["replica"] is None
    assert plan["on_one"]["missing_bytes"] > plan["device"]["memory_bytes"]


def test_replicas_devices_and_cost_follow_from_a_rate(run: Run, llama: Path, tmp_path: Path) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text(PRICES)
    options = (llama, "--gpu", "h100", "--context", 8192, "--in", 1000, "--out", 250, "--prices", prices)
    replica = planned(run, *options, "--rate", 100, "--ttft", 0.5)["plans"][0]["replica"]
    sizing, cost = replica["sizing"], replica["cost"]
    assert sizing["replicas_if_faster"] <= sizing["replicas"] <= sizing["replicas_if_slower"]
    assert sizing["devices"] == sizing["replicas"] * replica["fit"]["devices"]
    assert cost["per_hour"] == 2.0 * sizing["devices"]
    assert cost["per_million_tokens"] == pytest.approx(cost["per_hour"] / (100 * 1_250 * 3_600 / 1e6))
    text = words(run(*options, "--rate", 100, "--ttft", 0.5))
    assert f"device-hours: {sizing['devices']} an hour" in text
    assert "price of 2026-01-01: 2 EUR a device-hour" in text
    assert "example" not in text


def test_replicas_of_more_than_one_machine_are_laid_on_machines(run: Run, llama: Path, tmp_path: Path) -> None:
    options = ("--context", 8192, "--in", 1000, "--out", 250, "--rate", 1)
    asked = (checkpoint(tmp_path / "large", LLAMA_70B), "--gpu", "l4", "--devices-per-machine", 4, *options)
    replica = planned(run, *asked)["plans"][0]["replica"]
    tensor, pipeline, count = replica["fit"]["tensor"], replica["fit"]["pipeline"], replica["sizing"]["replicas"]
    together = 4 // tensor
    assert tensor * pipeline > 4
    told = words(run(*asked)).partition("Machines ")[2]
    assert told.startswith(f"{ceil(count * pipeline / together)} of 4 x l4: ")
    said = f"tensor_parallel: {tensor}, pipeline_parallel: {pipeline}, nodes: {ceil(pipeline / together)}"
    assert f" on each; fleet.yaml: {said} " in told
    assert "Machines" not in words(run(llama, "--gpu", "l4", "--devices-per-machine", 4, *options))


def test_a_target_that_nobody_can_keep_is_named(run: Run, llama: Path) -> None:
    text = words(run(llama, "--gpu", "l4", "--context", 8192, "--rate", 1, "--tpot", 0.001))
    assert "none is enough" in text
    assert "can't be kept even by an idle replica" in text
    assert "Cost none" in text


def test_the_layout_is_the_one_of_fewest_devices_that_keeps_the_targets(run: Run, llama: Path) -> None:
    """One L4 takes 67 ms a token; split over four it keeps 30 ms."""
    options = (llama, "--gpu", "l4", "--context", 8192, "--rate", 0.1)
    loose, strict = (planned(run, *options, *more)["plans"][0]["replica"] for more in ((), ("--tpot", "0.03")))
    assert loose["fit"]["devices"] == 1
    assert strict["fit"]["devices"] == 4
    assert strict["sizing"]["each"]["token_s"] <= 0.03


def test_several_gpus_stand_side_by_side_and_the_cheapest_is_told_in_full(run: Run, llama: Path) -> None:
    text = run(llama, "--gpu", "h100", "--gpu", "mi300x", "--gpu", "4gb", "--context", 8192, "--rate", 5)
    assert re.search(r"^h100 +1 ", text, re.MULTILINE)
    assert re.search(r"^mi300x +1 .* - *$", text, re.MULTILINE)
    assert re.search(r"^jetson-orin-nano-4gb +no ", text, re.MULTILINE)
    assert re.search(r"^h100 \(.*: the cheapest$", text, re.MULTILINE)
    assert "no price for jetson-orin-nano-4gb, mi300x" in words(text)
    assert "the prices of h100 are examples" in words(text)
    assert max(map(len, text.splitlines())) <= 80


def test_all_means_every_device_that_is_known(run: Run, llama: Path) -> None:
    names = [plan["device"]["name"] for plan in planned(run, llama, "--gpu", "all", "--context", 4096)["plans"]]
    assert len(names) == len(set(names)) > 10
    assert {"h100", "l4", "mi300x", "rtx-4090", "jetson-orin-nano-4gb"} <= set(names)


def test_auto_is_this_machine(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")  # no nvidia-smi: the CPU
    (plan,) = planned(run, checkpoint(tmp_path / "small", SMALL))["plans"]
    assert plan["device"]["name"] == "cpu"
    assert plan["replica"]["times"]["origin"] == "estimate from its cores"
    assert plan["engine"]["cache_bytes"] == 1 << 30


def test_a_quantized_form_is_forecast_and_uses_the_devices_narrow_arithmetic(run: Run, llama: Path) -> None:
    options = ("--context", 8192, "--quantization", "w8a8", "--quantization", "fp8", "--quantization", "w4a16")
    plans = planned(run, llama, "--gpu", "a100-80gb", *options)["plans"]
    assert [plan["variant"]["name"] for plan in plans] == ["as it is", "w8a8", "fp8", "w4a16"]
    # An A100 has no fp8: those weights are widened before they are multiplied, as 4-bit ones are everywhere.
    assert [plan["replica"]["times"]["dtype"] for plan in plans] == ["bf16", "int8", "bf16", "bf16"]
    weights = [plan["variant"]["weights_bytes"] for plan in plans]
    assert weights[0] > weights[1] == weights[2] > weights[3]
    speeds = [plan["replica"]["token_s"]["value"] for plan in plans]
    assert speeds[0] > speeds[1] > speeds[3]


def test_artefacts_stand_beside_the_model_with_the_quality_that_was_measured(run: Run, tmp_path: Path) -> None:
    folder, shelf = checkpoint(tmp_path / "small", SMALL), tmp_path / "shelf"
    artefact = checkpoint(shelf / "w8a8", SMALL)
    (artefact / "report.json").write_text(w8a8().model_dump_json())
    text = run(folder, "--gpu", "l4", "--variants", shelf)
    assert re.search(r"^l4, as it is .* - *$", text, re.MULTILINE)
    ratio = w8a8().quality[-1].ratio
    assert re.search(rf"^l4, w8a8 .* {ratio.value:.2f} \({ratio.low:.2f}-{ratio.high:.2f}\) *$", text, re.MULTILINE)
    (plan,) = [plan for plan in planned(run, artefact.parent / "w8a8", "--gpu", "l4")["plans"]]
    assert plan["variant"]["quality"] is None


def test_a_calibration_is_used_and_named(run: Run, llama: Path, tmp_path: Path) -> None:
    coefficients = Coefficients(
        compute=0.4, bandwidth=0.5, kv_bandwidth=0.5, step_s=1e-3, sequence_s=1e-6, token_s=1e-7
    )
    measured = Calibration(
        device="l4",
        tensor=1,
        pipeline=1,
        model=identity(read(llama), "bf16"),
        engine={},
        coefficients=coefficients,
        residuals=(Residual(point="one", measured_s=1.1, predicted_s=1.0),),
        checks=(),
        date="2026-02-03T04:05:06+00:00",
        versions={},
    )
    options = (llama, "--gpu", "l4", "--context", 8192)
    before = planned(run, *options)["plans"][0]["replica"]
    folder = tmp_path / "headrace_state" / "calibrations"
    folder.mkdir(parents=True)
    (folder / "l4.json").write_text(to_json(measured))
    after = planned(run, *options)["plans"][0]["replica"]
    assert (before["times"]["origin"], after["times"]["origin"]) == ("data sheet", "calibration of 2026-02-03")
    assert after["times"]["error"] == pytest.approx(0.1)
    assert after["token_s"]["value"] > before["token_s"]["value"]
    other = planned(run, checkpoint(tmp_path / "other", SMALL), "--gpu", "l4")["plans"][0]["replica"]["times"]
    assert other["origin"] == "calibration of 2026-02-03 with LlamaForCausalLM of 8.03 B on TP 1"
    assert other["error"] == before["times"]["error"]


def test_a_trace_gives_lengths_and_the_rate_of_its_fullest_minute(run: Run, llama: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    rows = [f"{at},1000,{100 + at % 2}" for at in (*range(60), *range(120, 300, 10))]
    trace.write_text("\n".join(["arrival_s,prompt_tokens,output_tokens", *rows]))
    load = planned(run, llama, "--gpu", "h100", "--context", 8192, "--trace", trace)["load"]
    assert (load["prompt_tokens"], load["requests_per_s"]) == (1_000, 1.0)
    text = words(run(llama, "--gpu", "h100", "--context", 8192, "--trace", trace))
    assert "mean lengths and the fullest minute of" in text
    assert "78 requests in 4.83 min, 0.269/s in the mean" in text


def test_training_is_told_for_ddp_and_fsdp(run: Run, llama: Path) -> None:
    options = (llama, "--gpu", "h100", "--context", 8192, "--train")
    tuned, taught = (planned(run, *options, how)["training"] for how in ("finetune", "distil"))
    assert [(row["sharding"], row["devices"]) for row in tuned] == [
        (sharding, count) for sharding in ("ddp", "fsdp") for count in (1, 2, 4, 8)
    ]
    assert [row["fits"] for row in tuned] == [False] * 5 + [True] * 3
    assert all(one["teacher_bytes"] == 0 < other["teacher_bytes"] for one, other in zip(tuned, taught, strict=True))
    text = run(*options, "distil")
    assert re.search(r"^DDP x 1 .* no *$", text, re.MULTILINE)
    assert "learning from" in words(text)
    assert max(map(len, text.splitlines())) <= 80


def test_json_has_units_in_its_names_and_no_endless_numbers(run: Run, llama: Path) -> None:
    found = planned(run, llama, "--gpu", "h100", "--context", 8192, "--rate", 1)
    assert found["format"] == 1
    assert found["load"]["ttft_target_s"] is None
    assert found["model"]["weights_bytes"] == 16_060_522_496
    assert found["model"]["kv_bytes_per_token"] == 131_072
    replica = found["plans"][0]["replica"]
    for name in ("ttft_s", "token_s", "full_tokens_per_s"):
        each = replica[name]
        assert each["low"] < each["value"] < each["high"]
        assert each["value"] / each["low"] == pytest.approx(1 + replica["times"]["error"])


def test_config_json_alone_is_enough(run: Run, tmp_path: Path) -> None:
    whole = planned(run, checkpoint(tmp_path / "whole", SMALL), "--gpu", "l4")
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "config.json").write_text(json.dumps(SMALL))
    alone = planned(run, tmp_path / "alone", "--gpu", "l4")
    assert alone["model"]["origin"] == "config.json and transformers' own shapes"
    for name in ("parameters", "weights_bytes", "part_bytes", "kv_bytes_per_token"):
        assert alone["model"][name] == whole["model"][name]


def test_a_page_asks_nothing_of_any_other(run: Run, llama: Path, tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    run(llama, "--gpu", "h100", "--gpu", "l4", "--context", 8192, "--rate", 5, "--ttft", 1, "--html", page)
    html = page.read_text()
    assert html.count("<svg") == 4
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", html)
    assert "h100" in html
    assert "USD per million tokens" in html


def test_a_page_without_prices_draws_no_cost(run: Run, llama: Path, tmp_path: Path) -> None:
    page = tmp_path / "plan.html"
    run(llama, "--gpu", "mi300x", "--context", 8192, "--html", page)
    assert page.read_text().count("<svg") == 3


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (("--gpu", "h101"), "--gpu: no device is known as 'h101': did you mean h100?"),
        (("--gpu", "a100"), "--gpu: 'a100' may be a100-40gb or a100-80gb: which one?"),
        (("--context", 300), "--context: should be 1 to the model's 256, got 300"),
        (("--rate", 0), "--rate: should be above 0, got 0"),
        (("--rate", "inf"), "--rate: should be above 0, got inf"),
        (("--ttft", 1), "--ttft: a target goes with --rate or --trace"),
        (("--in", 200, "--out", 100), "--in and --out: 200 + 100 tokens should be at most the context, 256"),
        (("--quantization", "w4a61"), "--quantization: should be one of fp8, w8a8, w4a16, w4a16_asym, got 'w4a61'"),
        (("--quantization", "fp8", "--variants", "."), "--variants: forms are either forecast"),
        (("--variants", "nowhere"), "--variants: nowhere is no folder"),
        (("--train", "tune"), "--train: should be one of distil, finetune, got 'tune'"),
        (("--teacher", "tiny"), "--teacher: goes with --train distil"),
        (("--trace", "gone.csv"), "--trace: gone.csv: no such file or directory"),
        (("--rate", 1, "--trace", "gone.csv"), "--rate: a trace says it already; leave out --rate or --trace"),
        (("--prices", "gone.yaml"), "--prices: gone.yaml: no such file or directory"),
        (("--devices-per-machine", 0), "--devices-per-machine: should be above 0, got 0"),
        (("--html", "nowhere/plan.html"), "--html: nowhere/plan.html: no such file or directory"),
    ],
)
def test_wrong_options_are_refused_in_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[object, ...], line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = checkpoint(tmp_path / "small", SMALL)
    with pytest.raises(Failure) as refused:
        run(folder, "--gpu", "l4", *options) if "--gpu" not in options else run(folder, *options)
    assert str(refused.value).startswith(line)
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("source", "line"),
    [
        ("smolm2", "MODEL: 'smolm2' is no known model"),
        ("a/b/c", "MODEL: 'a/b/c' is no known model"),
        ("empty", "MODEL: empty/config.json: no such file or directory"),
    ],
)
def test_a_model_that_is_nowhere_is_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(Failure, match=re.escape(line)):
        run(source)
