"""How does a run go on in the background, and how does the terminal learn that it is ready?"""

import os
import subprocess
import sys
from pathlib import Path

from cluster import runs
from cluster.processes import first_gone, identify
from headrace.driver import LOG_VARIABLE
from headrace.folders import logs_folder, runs_folder
from headrace.steps import Steps

LOOK_EVERY_S = 0.2


def detach(name: str, steps: Steps) -> None:
    """Runs this very command again, without --detach, as a driver of its own; returns when that is ready.

    Ends with the driver's exit code when it fails. Ctrl-C ends the driver too.
    """
    log = logs_folder() / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    driver = _start(log)
    try:
        _follow(driver, name, log)
    except KeyboardInterrupt:
        driver.terminate()
        driver.wait()
        raise
    steps.say(f"In the background as pid {driver.pid}, log: {log}")


def _start(log: Path) -> subprocess.Popen[bytes]:
    words = sys.argv[1:]
    end = words.index("--") if "--" in words else len(words)
    words = [word for word in words[:end] if word != "--detach"] + words[end:]
    with log.open("wb") as output:
        return subprocess.Popen(
            # -P: packages are not looked for in the user's folder.
            [sys.executable, "-P", "-m", "headrace", *words],
            env={**os.environ, LOG_VARIABLE: str(log)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _follow(driver: subprocess.Popen[bytes], name: str, log: Path) -> None:
    """Shows what the driver writes until its record says ready. Exits with its code when it ends before."""
    process = identify(driver.pid)
    with log.open() as written:
        while True:
            gone = process is None or first_gone((process,), LOOK_EVERY_S)
            print(written.read(), end="", flush=True)
            if gone:
                sys.exit(driver.wait())
            run = runs.read(runs_folder(), name)
            if run is not None and run.driver == process and run.ready:
                return
