"""After a calibration, does the cost model know how fast the engine is at loads that it has not seen?"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import psutil
import pytest

from cluster.calibration import Calibration, from_json, quantile
from headrace.fetching import cache_folder
from tests.e2e.typed import headrace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

ALLOWED = 0.15


def environment(folder: Path) -> dict[str, str]:
    """The models that are here already, and everything else in a folder of its own."""
    return os.environ | {"HEADRACE_CACHE": str(cache_folder()), "HEADRACE_STATE": str(folder / "state")}


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    folder = tmp_path_factory.mktemp("calibrate")
    words = ("calibrate", "smollm2", "--check", "--output", str(folder / "found.json"))
    done = headrace(*words, env=environment(folder), timeout_s=1100)
    assert done.returncode == 0, done.stdout + done.stderr
    return from_json((folder / "found.json").read_text())


@pytest.mark.prove
def test_the_fitted_formula_describes_every_load(
    calibration: Calibration, record_property: Callable[[str, object], None]
) -> None:
    for residual in calibration.residuals:
        off = residual.predicted_s / residual.measured_s - 1
        record_property(residual.point, f"measured {residual.measured_s:.4g}, predicted {off:+.1%}")
    assert calibration.points >= 16
    # A few points of a disturbed machine don't move the fit, and may stay far from it.
    assert quantile(calibration.residuals, 0.5) <= ALLOWED / 3
    assert quantile(calibration.residuals, 0.8) <= ALLOWED


@pytest.mark.prove
def test_unseen_traffic_takes_as_long_as_foreseen(
    calibration: Calibration, record_property: Callable[[str, object], None]
) -> None:
    off = {check.point: check.predicted_s / check.measured_s - 1 for check in calibration.checks}
    for check in calibration.checks:
        record_property(check.point, f"measured {check.measured_s:.4g}, foreseen {off[check.point]:+.1%}")
    assert len(off) == 27
    assert {name: f"{error:+.1%}" for name, error in off.items() if abs(error) > ALLOWED} == {}


@pytest.mark.prove
def test_ctrl_c_while_it_measures_leaves_no_process(tmp_path: Path) -> None:
    # A shell's background job ignores Ctrl-C, and so would what it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [sys.executable, "-m", "headrace", "calibrate", "tiny"]
    with subprocess.Popen(command, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as run:
        started = psutil.Process(run.pid)
        while not any("EngineCore" in child.name() for child in started.children(recursive=True)):
            assert run.poll() is None, run.stdout.read() if run.stdout else ""
        children = started.children(recursive=True)
        run.send_signal(signal.SIGINT)
        begin_s = monotonic()
        run.wait(timeout=60)
        gone, alive = psutil.wait_procs(children, timeout=10)
    assert not alive, f"{len(alive)} processes are left after {monotonic() - begin_s:.0f} s, {len(gone)} ended"
    assert not (tmp_path / "state" / "calibrations").exists()
