"""Figures are rounded to what can be believed, and no rounding changes what they say."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compress.report import Interval
from headrace.report_numbers import duration, many, measured, number, points, ratio, size, times
from tests.headrace.report_samples import around


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
