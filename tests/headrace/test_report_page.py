"""A report's page stands alone, is well formed, says everything, and hides nothing that got worse."""

import math
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.report import Interval, Report
from headrace.pareto import candidates, dominated, fronts, unlike
from headrace.report_numbers import duration, many, measured, number, points, ratio, size, times
from headrace.report_page import page
from headrace.report_words import claims, headline, notices
from tests.headrace.report_samples import around, depth_width, masked, w8a8

VOID = {"meta", "link", "br"}
FETCHES = {"src", "srcset", "href", "xlink:href", "action", "data", "poster", "background"}
SAMPLES = (depth_width, w8a8, masked)


class Page(HTMLParser):
    """Every tag with its attributes, the text, and what is wrong with the nesting."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        self.wrong += [f"<{tag}> is never closed" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"</{tag}> closes nothing at {self.getpos()}")

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))

    def attributes(self, name: str) -> list[str]:
        return [value or "" for _, attributes in self.tags for key, value in attributes.items() if key == name]


def read(report: Report, *others: Report) -> Page:
    return Page(page(report, others))


@pytest.mark.parametrize("sample", SAMPLES)
def test_the_page_asks_nothing_of_any_other(sample) -> None:
    html = page(sample(), [one() for one in SAMPLES])
    fetched = [value for name in FETCHES for value in Page(html).attributes(name)]
    assert {value for value in fetched if not value.startswith("#")} == {"data:,"}
    assert not re.search(r"https?:|//[a-z]|@import|@font-face|<script|url\((?!#)", html)
    assert "default-src 'none'" in html


@pytest.mark.parametrize("sample", SAMPLES)
def test_the_page_is_well_formed_and_its_ids_are_unique(sample) -> None:
    read_page = read(sample(), *(one() for one in SAMPLES))
    assert read_page.wrong == []
    ids = read_page.attributes("id")
    assert len(ids) == len(set(ids))
    pointed_at = {value[1:] for name in FETCHES for value in read_page.attributes(name) if value.startswith("#")}
    assert pointed_at <= set(ids)


@pytest.mark.parametrize("sample", SAMPLES)
def test_the_same_report_gives_the_same_bytes(sample) -> None:
    others = [one() for one in SAMPLES]
    assert page(sample(), others) == page(sample(), others)


def test_tables_have_captions_and_scopes_and_plots_have_words() -> None:
    tags = read(depth_width(), w8a8()).tags
    names = [tag for tag, _ in tags]
    assert names.count("table") == names.count("caption") > 5
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in tags if tag == "th")
    plots = [attributes for tag, attributes in tags if tag == "svg"]
    assert len(plots) == 7
    assert all(attributes.get("role") == "img" and attributes.get("aria-label") for attributes in plots)


def test_plots_take_their_colours_from_the_page() -> None:
    html = page(depth_width(), [w8a8(), masked()])
    body = html[html.index("<body") :]
    assert not re.search(r"(?:fill|stroke): #(?!000000|ffffff)", body)
    used = set(re.findall(r"var\(--([\w-]+)\)", html))
    assert used <= set(re.findall(r"--([\w-]+):", html))


@pytest.mark.parametrize("sample", SAMPLES)
def test_every_figure_of_the_report_is_on_the_page(sample) -> None:
    report = sample()
    text = read(report).text
    for part in report.size.parts:
        assert f"{part.part.replace('_', '-')} {size(part.parent_bytes)} {size(part.bytes)}" in text
    for quality in report.quality:
        for written in (measured(quality.parent_perplexity), measured(quality.perplexity), ratio(quality.ratio)):
            assert f"{written.value} {written.span}" in text
    for speed in report.speed:
        for written in (measured(speed.parent), measured(speed.artefact), ratio(speed.ratio)):
            assert f"{written.value} {written.span}" in text
    for tokens in report.break_even_tokens.values():
        assert (many(tokens) if tokens else "never") in text
    lineage = report.lineage
    hashes = {value for name, value in lineage if name.endswith("_hash")} | {done.weights_hash for done in report.steps}
    for words in (*hashes, *lineage.versions.values(), *notices(report), number(report.gate.kl), "calibration:"):
        assert words in text


def test_the_sections_stand_in_their_order() -> None:
    text = read(depth_width(), w8a8()).text
    titles = ("Better", "To know first", "Size", "Quality", "Speed", "Tasks", "Gate", "Among others", "Break-even")
    places = [text.index(f" {title} ") for title in (*titles[:6], "Gate:", *titles[7:], "Steps", "Lineage")]
    assert places == sorted(places)


def test_the_headline_says_what_got_worse_as_plainly_as_what_got_better() -> None:
    assert headline(w8a8()) == (
        "0.61x the bytes, 1.05x the perplexity (1.02 to 1.07), which is worse. "
        "Prefill: 1.21x as fast at batch 1 (1.16 to 1.26), 1.24x as fast at batch 8 (1.19 to 1.29). "
        "Decode: only 0.88x as fast at batch 1 (0.84 to 0.92), no difference shown at batch 8 (0.98 to 1.06). "
        "First token: after 0.84x the time at batch 1 (0.81 to 0.87)."
    )


def test_negative_results_stay_in() -> None:
    report = masked()
    assert headline(report).startswith("As many bytes as its parent, 2,810x the perplexity")
    assert [claim for claim in claims(report) if claim.verdict == "better"] == []
    text = read(report).text
    assert "Better 0 Nothing." in text
    assert text.count("slower") == 1
    assert text.count("never: not shown to be faster") == 2
    assert "Masks bring no serving gain" in text


def test_a_ratio_whose_interval_includes_one_is_no_gain() -> None:
    fast = depth_width()
    doubtful = fast.speed[0].model_copy(update={"ratio": Interval(value=1.2, low=0.99, high=1.4)})
    report = fast.model_copy(update={"speed": (doubtful,)})
    assert headline(report).endswith("Prefill: no difference shown at batch 1 (0.99 to 1.40).")
    assert "faster" not in read(report).text.split("Tasks")[0].split("Speed")[1].split("tokens/s, artefact")[0]


def test_tasks_that_the_parent_guesses_are_named_but_not_compared() -> None:
    report = depth_width()
    text = read(report).text
    assert "the parent does no better than guessing, so the scores say nothing: topics_hard (120 items" in text
    assert all("topics_hard" not in claim.subject for claim in claims(report))


def test_a_gate_beyond_its_limits_is_the_first_thing_to_know() -> None:
    good = w8a8()
    report = good.model_copy(update={"gate": good.gate.model_copy(update={"kl": 0.5})})
    assert notices(report)[0].startswith("vLLM does not compute what the compressor computed")
    assert "0.500 at most 0.0100 NO" in read(report).text


def test_the_parents_own_rounding_is_said_once() -> None:
    label = "The source's weights were rounded before, Q4_1, 4 bits: losses are relative to that."
    assert len(notices(w8a8())) == 1
    assert notices(w8a8().model_copy(update={"labels": (label,)})) == [label]


def test_whatever_a_report_says_is_text_and_never_markup() -> None:
    evil = "<script>alert('x')</script> --> url(#a) $x^2$ \" id=\"b"
    good = depth_width()
    report = good.model_copy(
        update={
            "name": evil,
            "labels": (evil,),
            "recipe": {"name": evil},
            "break_even_tokens": {evil: None},
            "steps": (good.steps[0].model_copy(update={"step": {"do": evil}, "found": {evil: [1.0, 2.0, 3.0]}}),),
            "tasks": (good.tasks[0].model_copy(update={"name": evil}),),
            "lineage": good.lineage.model_copy(update={"source": evil, "machine": {evil: evil}}),
        }
    )
    other = w8a8()
    renamed = other.model_copy(
        update={"name": evil, "lineage": other.lineage.model_copy(update={"machine": {evil: evil}})}
    )
    read_page = read(report, renamed)
    assert read_page.wrong == []
    assert "script" not in {tag for tag, _ in read_page.tags}
    assert read_page.text.count("<script>alert('x')</script>") >= 10


def test_a_report_without_measurements_is_still_a_page() -> None:
    bare = {"quality": (), "speed": (), "tasks": (), "break_even_tokens": {}, "steps": (), "labels": ()}
    read_page = read(w8a8().model_copy(update=bare))
    assert read_page.wrong == []
    assert "0.61x the bytes, perplexity was not measured." in read_page.text


def test_an_infinite_perplexity_is_called_so() -> None:
    good = masked()
    endless = Interval(value=math.inf, low=math.inf, high=math.inf)
    worst = good.quality[1].model_copy(update={"perplexity": endless, "ratio": endless})
    read_page = read(good.model_copy(update={"quality": (worst,)}), w8a8())
    assert read_page.wrong == []
    assert "∞x the perplexity (∞ to ∞), which is worse" in read_page.text.replace("\u00a0", " ")


def test_only_what_was_judged_alike_is_compared() -> None:
    report, other = depth_width(), w8a8()
    elsewhere = other.model_copy(update={"lineage": other.lineage.model_copy(update={"evaluation_hash": "0" * 64})})
    assert unlike(report, other) is None
    assert [one.name for one in candidates(report, [other, report])] == ["parent", "depth3-ffn25", "w8a8"]
    assert [one.name for one in candidates(report, [elsewhere])] == ["parent", "depth3-ffn25"]
    assert "Not comparable: w8a8 (judged on other text)." in read(report, elsewhere).text


def test_speeds_of_another_machine_are_not_drawn() -> None:
    report, other = depth_width(), w8a8()
    moved = other.model_copy(update={"lineage": other.lineage.model_copy(update={"machine": {"cores": 64}})})
    sizes, *speeds = fronts(candidates(report, [moved]))
    assert [one.name for one in sizes.members] == ["parent", "depth3-ffn25", "w8a8"]
    assert all([one.name for one in front.members] == ["parent", "depth3-ffn25"] for front in speeds)


def test_the_beaten_are_grey_in_the_plot_and_named_in_the_table() -> None:
    report = masked()
    sizes, _, _ = fronts(candidates(report, [depth_width(), w8a8()]))
    assert dict(zip((one.name for one in sizes.members), sizes.beaten, strict=True)) == {
        "parent": False,
        "magnitude-2-4": True,
        "depth3-ffn25": True,
        "w8a8": False,
    }
    html = page(report, [depth_width(), w8a8()])
    assert re.search(r"fill: var\(--same\)[^>]*>magnitude-2-4<", html)
    assert re.search(r"fill: var\(--ink\)[^>]*>w8a8<", html)


Points = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=8)


@given(Points)
def test_whoever_is_dominated_is_so_by_one_who_is_not(found: list[tuple[int, int]]) -> None:
    kept = [point for point, lost in zip(found, dominated(found), strict=True) if not lost]
    assert bool(kept) == bool(found)
    for (x, y), lost in zip(found, dominated(found), strict=True):
        better = [(a, b) for a, b in kept if a <= x and b <= y and (a, b) != (x, y)]
        assert lost == bool(better)


@given(Points, st.randoms())
def test_order_and_repetition_do_not_change_who_is_dominated(found: list[tuple[int, int]], random) -> None:
    verdicts = dict(zip(found, dominated(found), strict=True))
    shuffled = found + found
    random.shuffle(shuffled)
    assert dominated(shuffled) == [verdicts[point] for point in shuffled]


@given(st.floats(0.5, 2.0), st.floats(0.0001, 0.2))
def test_rounding_a_ratio_never_changes_its_reading(value: float, share: float) -> None:
    interval = around(value, share)
    low, high = map(float, ratio(interval).span.split(" to "))
    if abs(interval.low - 1) > 1e-5 and abs(interval.high - 1) > 1e-5:
        assert (low > 1 or high < 1) == interval.excludes(1)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (number(1234.5), "1,230"),
        (number(0.0325), "0.0325"),
        (number(8), "8"),
        (number(math.nan), "unknown"),
        (number(3e-9), "3.0e-09"),
        (str(measured(Interval(value=14.84, low=13.5, high=16.2))), "14.8 (13.5 to 16.2)"),
        (str(measured(Interval(value=2.4e6, low=2.1e6, high=2.8e6))), "2,400,000 (2,100,000 to 2,800,000)"),
        (str(ratio(Interval(value=1.002, low=1.001, high=1.003))), "1.002x (1.001 to 1.003)"),
        (str(ratio(Interval(value=1, low=1, high=1))), "1.00x (1.00 to 1.00)"),
        (str(points(Interval(value=-0.0004, low=-0.0007, high=-0.0001))), "-0.04 points (-0.07 to -0.01)"),
        (times(0.9996), "0.9996x"),
        (size(999_600), "1.00 MB"),
        (size(23_040), "23.0 kB"),
        (duration(479.2), "479 s"),
        (duration(900), "15.0 min"),
        (many(2_300_000), "2.30 million"),
    ],
)
def test_figures_are_as_exact_as_they_can_be_read(written: str, expected: str) -> None:
    assert written == expected
