"""A report's page stands alone, is well formed, says everything, and hides nothing that got worse."""

import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import pytest

from compress.report import Interval, Report
from headrace.report_numbers import many, measured, number, ratio, size
from headrace.report_page import page
from headrace.report_words import claims, headline, notices
from tests.headrace.report_samples import depth_width, distilled, masked, w8a8

ROOT = Path(__file__).parents[2]
VOID = {"meta", "link", "br"}
FETCHES = {"src", "srcset", "href", "xlink:href", "action", "data", "poster", "background"}
SAMPLES = (depth_width, w8a8, masked, distilled)


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


@cache
def whole(sample: Callable[[], Report]) -> str:
    """A sample's page among all samples, drawn once: drawing takes a second."""
    return page(sample(), [one() for one in SAMPLES])


@pytest.mark.parametrize("sample", SAMPLES)
def test_the_page_asks_nothing_of_any_other(sample: Callable[[], Report]) -> None:
    html = whole(sample)
    fetched = [value for name in FETCHES for value in Page(html).attributes(name)]
    assert {value for value in fetched if not value.startswith("#")} == {"data:,"}
    assert not re.search(r"https?:|//[a-z]|@import|@font-face|<script|url\((?!#)", html)
    assert "default-src 'none'" in html


@pytest.mark.parametrize("sample", SAMPLES)
def test_the_page_is_well_formed_and_its_ids_are_unique(sample: Callable[[], Report]) -> None:
    read_page = Page(whole(sample))
    assert read_page.wrong == []
    ids = read_page.attributes("id")
    assert len(ids) == len(set(ids))
    pointed_at = {value[1:] for name in FETCHES for value in read_page.attributes(name) if value.startswith("#")}
    assert pointed_at <= set(ids)


def test_the_same_report_gives_the_same_bytes_in_any_process() -> None:
    code = (
        "from headrace.report_page import page; from tests.headrace import report_samples as samples\n"
        "names = ('depth_width', 'w8a8', 'masked', 'distilled')\n"
        "print(page(samples.depth_width(), [getattr(samples, name)() for name in names]), end='')"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    other = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True)
    assert other.stdout.decode() == whole(depth_width)


def test_tables_have_captions_and_scopes_and_plots_have_words() -> None:
    tags = Page(whole(depth_width)).tags
    names = [tag for tag, _ in tags]
    assert names.count("table") == names.count("caption") > 5
    assert all(attributes.get("scope") in ("row", "col") for tag, attributes in tags if tag == "th")
    plots = [attributes for tag, attributes in tags if tag == "svg"]
    assert len(plots) == 7
    assert all(attributes.get("role") == "img" and attributes.get("aria-label") for attributes in plots)


def test_plots_take_their_colours_from_the_page() -> None:
    html = whole(depth_width)
    body = html[html.index("<body") :]
    assert not re.search(r"(?:fill|stroke): #(?!000000|ffffff)", body)
    used = set(re.findall(r"var\(--([\w-]+)\)", html))
    assert used <= set(re.findall(r"--([\w-]+):", html))


@pytest.mark.parametrize("sample", SAMPLES)
def test_every_figure_of_the_report_is_on_the_page(sample: Callable[[], Report]) -> None:
    report, text = sample(), Page(whole(sample)).text
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
    text = Page(whole(depth_width)).text
    titles = ("Better", "Worse", "No difference shown", "To know first", "Size", "Quality", "Speed", "Tasks", "Gate:")
    last = ("Among others", "Break-even", "Steps", "Lineage")
    places = [text.index(f" {title} ") for title in (*titles, *last)]
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
    text = Page(whole(masked)).text
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
    report, text = depth_width(), Page(whole(depth_width)).text
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


def test_the_beaten_are_grey_and_what_can_not_be_compared_is_named() -> None:
    html = whole(masked)
    assert re.search(r"fill: var\(--same\)[^>]*>magnitude-2-4 41,800<", html)
    assert re.search(r"fill: var\(--ink\)[^>]*>w8a8<", html)
    other = w8a8()
    elsewhere = other.model_copy(update={"lineage": other.lineage.model_copy(update={"evaluation_hash": "0" * 64})})
    assert "Not comparable: w8a8 (judged on other text)." in read(depth_width(), elsewhere).text


def test_a_distillation_is_told_and_its_learning_curve_drawn() -> None:
    told = Page(whole(distilled))
    assert "1.40 → 0.329 nats per token in 120 steps, 63.0 min" in told.text
    assert "Loss of each training step" in told.attributes("aria-label")
