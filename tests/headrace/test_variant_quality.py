"""A variant's quality is what the fleet says, else what its report measured, else the fleet is refused."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from compress.report import FILE, Report
from deployments.fleet import Fleet, validate
from headrace.failure import Failure
from headrace.steps import Steps
from headrace.variant_quality import check_qualities, judged
from tests.headrace.report_samples import w8a8


def fleet(folder: Path, **fields: object) -> Fleet:
    variant = {"name": "w8", "source": str(folder)} | fields
    return validate({"models": [{"name": "m", "source": "m", "variants": [variant]}]})


def quality(fleet: Fleet, output: io.StringIO | None = None) -> float | None:
    (model,) = judged(fleet, Steps(Console(file=output or io.StringIO(), width=200))).models
    return model.variants[0].quality


def write(folder: Path, report: Report) -> None:
    (folder / FILE).write_text(report.model_dump_json())


def test_by_its_report_it_is_the_parents_perplexity_over_its_own(tmp_path: Path) -> None:
    write(tmp_path, w8a8())
    output = io.StringIO()
    (measured,) = (one for one in w8a8().quality if one.executor == "vllm")
    assert quality(fleet(tmp_path), output) == 1 / measured.ratio.value
    assert "m-w8 has quality 0.957" in output.getvalue()
    assert "in vLLM" in output.getvalue()


def test_what_the_file_says_counts_and_no_report_is_read(tmp_path: Path) -> None:
    assert quality(fleet(tmp_path, quality=0.5)) == 0.5


def test_no_variant_counts_as_better_than_its_model(tmp_path: Path) -> None:
    good = w8a8()
    ratio = {"value": 0.9, "low": 0.8, "high": 0.95}
    better = [one.model_dump() | {"ratio": ratio} for one in good.quality]
    write(tmp_path, Report.model_validate(good.model_dump() | {"quality": better}))
    assert quality(fleet(tmp_path)) == 1.0


def test_without_either_the_fleet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"m-w8: quality: is missing, and so is a report: .*report.json: no such file"):
        quality(fleet(tmp_path))
    write(tmp_path, w8a8().model_copy(update={"quality": ()}))
    with pytest.raises(Failure, match="its report tells no perplexity"):
        quality(fleet(tmp_path))


def test_where_reports_are_not_read_it_must_be_written(tmp_path: Path) -> None:
    check_qualities(fleet(tmp_path, quality=0.5))
    with pytest.raises(Failure, match=r"m-w8: quality: its report is not read here: give a number"):
        check_qualities(fleet(tmp_path))
