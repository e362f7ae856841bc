"""The terminal lists, shows and compares artefacts, and says which one was meant."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from compress.report import FILE, Report
from headrace.artefacts import diff, differing, found, list_artefacts, show
from headrace.failure import Failure
from tests.headrace.report_samples import depth_width, masked, w8a8


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    for report in (depth_width(), w8a8()):
        put(tmp_path / report.name, report)
    put(tmp_path / "masks" / "one", masked())
    return tmp_path


def put(folder: Path, report: Report) -> None:
    folder.mkdir(parents=True)
    (folder / FILE).write_text(report.model_dump_json())


def console() -> tuple[Console, io.StringIO]:
    output = io.StringIO()
    return Console(file=output, width=100, highlight=False), output


def test_artefacts_are_found_one_and_two_levels_below(shelf: Path) -> None:
    put(shelf / "far" / "too" / "deep", masked())
    put(shelf / ".w8a8.partial", w8a8())
    assert found([shelf, shelf]) == [
        (shelf / "depth3-ffn25", depth_width()),
        (shelf / "masks" / "one", masked()),
        (shelf / "w8a8", w8a8()),
    ]


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    assert found([tmp_path, tmp_path / "gone"]) == []


@pytest.mark.parametrize("content", [b"{}", b"not json", b"\xff\xfe"])
def test_a_broken_report_is_told_and_hides_no_other(
    shelf: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (shelf / "broken").mkdir()
    (shelf / "broken" / FILE).write_bytes(content)
    heard: list[str] = []
    assert len(found([shelf], heard.append)) == 3
    assert len(heard) == 1
    assert capsys.readouterr().err == ""
    assert len(found([shelf])) == 3
    assert capsys.readouterr().err.startswith("headrace: ")


def test_a_list_has_one_row_each_and_marks_what_shows_no_difference(shelf: Path) -> None:
    on, output = console()
    list_artefacts([shelf], on)
    rows = [line.split() for line in output.getvalue().splitlines()]
    assert ["w8a8", "163", "MB", "0.61x", "1.05x", "1.21x", "1.24x", "0.88x", "~1.02x"] in rows
    assert ["magnitude-2-4", "269", "MB", "1.00x", "2,810x", "~0.99x", "~1.00x", "~1.01x", "0.91x"] in rows


def test_an_empty_list_says_how_to_fill_it(tmp_path: Path) -> None:
    on, output = console()
    list_artefacts([tmp_path], on)
    assert "headrace compress recipe.yaml" in " ".join(output.getvalue().split())


def test_an_artefact_is_shown_by_name_or_by_folder(shelf: Path) -> None:
    by_name, by_folder = console(), console()
    show("magnitude-2-4", [shelf], by_name[0])
    show(str(shelf / "masks" / "one"), [shelf], by_folder[0])
    assert by_name[1].getvalue() == by_folder[1].getvalue()
    text = " ".join(by_name[1].getvalue().split())
    for said in (
        "As many bytes as its parent, 2,810x the perplexity (2,740 to 2,880), which is worse.",
        "! Masks bring no serving gain",
        "worse First token, batch 1 0.412 → 0.461 s, 1.12x (1.08 to 1.16)",
        "break-even, decode at batch 1: never",
        "step 1: mask (by magnitude, pattern 2:4, rounds 4, recovery_steps 20), 41.7 s; found: sparsity 0.500",
    ):
        assert said in text


def test_an_unknown_name_is_told_with_the_nearest(shelf: Path) -> None:
    with pytest.raises(Failure, match=r"w8a9: no artefact in .* has this name, did you mean w8a8") as failure:
        show("w8a9", [shelf], console()[0])
    assert failure.value.exit_code == 2


def test_a_name_that_two_have_asks_for_a_folder(shelf: Path) -> None:
    put(shelf / "again", w8a8())
    with pytest.raises(Failure, match="2 artefacts are named w8a8: give one's folder"):
        show("w8a8", [shelf], console()[0])


def test_a_folder_without_a_report_is_told(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="no such file") as failure:
        show(str(tmp_path), [tmp_path], console()[0])
    assert failure.value.exit_code == 2


def test_two_are_set_side_by_side_with_what_their_recipes_do_differently(shelf: Path) -> None:
    on, output = console()
    diff("w8a8", "depth3-ffn25", [shelf], on)
    rows = [" ".join(line.split()) for line in output.getvalue().splitlines()]
    for row in (
        "figure w8a8 depth3-ffn25",
        "bytes on disk 163 MB, 0.61x 212 MB, 0.79x",
        "Decode, batch 1, over parent 0.88x (0.84 to 0.92) 1.01x (0.97 to 1.05)",
        "recipe w8a8 depth3-ffn25",
        "steps[0].do quantize drop_layers",
        "steps[1].share - 0.250",
    ):
        assert row in rows
    assert not any(row.startswith(("!", "source", "seed")) for row in rows)


def test_what_can_not_be_compared_is_said_first(shelf: Path) -> None:
    lineage = w8a8().lineage.model_copy(update={"evaluation_hash": "0" * 64, "machine": {"cores": 64}})
    put(shelf / "other", w8a8().model_copy(update={"name": "elsewhere", "lineage": lineage}))
    on, output = console()
    diff("w8a8", "elsewhere", [shelf], on)
    assert output.getvalue().splitlines()[:2] == [
        "! judged on different text: perplexities can't be compared",
        "! measured on different machines: speeds can't be compared",
    ]
    assert "the recipes are the same" in output.getvalue()


def test_brackets_in_a_name_are_no_markup(shelf: Path) -> None:
    put(shelf / "odd", w8a8().model_copy(update={"name": "[red]a[/red]"}))
    on, output = console()
    list_artefacts([shelf], on)
    assert "[red]a[/red]" in output.getvalue()


def test_paths_name_what_differs() -> None:
    assert differing({"a": 1, "b": [{"c": 2}]}, {"a": 1, "b": [{"c": 3}, {"d": None}]}) == [
        ("b[0].c", "2", "3"),
        ("b[1].d", "-", "none"),
    ]
    assert differing({"a": [1, 8]}, {"a": [1]}) == [("a", "1, 8", "1")]
