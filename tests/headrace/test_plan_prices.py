"""Prices are the user's: examples are copied once, then never touched; what is wrong with a file is one line."""

from pathlib import Path

import pytest

from headrace.failure import Failure
from headrace.plan_prices import read


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config" / "headrace" / "prices.yaml"


def test_the_examples_are_copied_and_called_examples(own: Path) -> None:
    path, prices = read(None)
    assert path == own
    assert own.exists()
    assert prices.devices
    assert all(price.example and price.source and price.date for price in prices.devices.values())


def test_what_the_user_wrote_stays(own: Path) -> None:
    read(None)
    own.write_text("devices: {h100: {per_hour: 1.5, date: 2026-05-01}}")
    _, prices = read(None)
    assert prices.devices["h100"].per_hour == 1.5
    assert not prices.devices["h100"].example
    assert list(prices.devices) == ["h100"]


def test_a_home_that_can_not_be_written_has_the_examples_still(own: Path) -> None:
    own.parent.parent.write_text("a file, no folder")
    path, prices = read(None)
    assert path.name == "prices.yaml"
    assert prices.devices


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("devices: {h10: {per_hour: 1, date: 2026-05-01}}", "devices: h10 is no device, did you mean h100? (known: "),
        (
            "devices: {h100: {per_hour: -1, date: 2026-05-01}}",
            "devices.h100.per_hour: should be greater than 0, got -1",
        ),
        ("devices: {h100: {per_hour: 1}}", "devices.h100.date: is missing"),
        ("devices: {h100: {per_hour: 1, date: soon}}", "devices.h100.date: "),
        ("device: {}", "device: unknown field, did you mean devices?"),
        ("devices: {h100: {per_hour: 1, date: 2026-05-01}, h100: {}}", "line 1: h100 is already given in line 1"),
    ],
)
def test_a_wrong_file_is_named_with_its_field(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(Failure) as refused:
        read(str(path))
    assert f"--prices: {path}: {line}" in str(refused.value)
    assert refused.value.exit_code == 2
