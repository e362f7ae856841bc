"""How does a test type a command, as a user would, and what does a fleet that it starts so leave to look at?"""

import os
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from cluster import launch

PATIENCE_S = 600.0
"""With a fleet that starts or ends."""


def headrace(*words: str, env: dict[str, str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    """`headrace WORDS`, to its end."""
    command = [sys.executable, "-m", "headrace", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout_s, check=False)


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    return next(launch.unused(random.Random()))


@dataclass(frozen=True, kw_only=True)
class DetachedFleet:
    """A fleet file with a port and a state folder of its own, served in the background."""

    file: Path
    port: int
    env: dict[str, str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def state(self) -> Path:
        return Path(self.env["HEADRACE_STATE"])

    def start(self) -> None:
        """Where it does not, nothing of it is left."""
        try:
            self._type("serve", str(self.file), "--detach")
        except BaseException:
            headrace("stop", env=self.env, timeout_s=PATIENCE_S)
            raise

    def stop(self) -> None:
        self._type("stop")

    def processes(self, words: str = "") -> list[psutil.Process]:
        """Its live processes whose title or command line holds these words."""
        return [process for process in psutil.process_iter() if self._is_ours(process) and words in title(process)]

    def _type(self, *words: str) -> None:
        done = headrace(*words, env=self.env, timeout_s=PATIENCE_S)
        assert done.returncode == 0, done.stdout + done.stderr

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            mine = process.environ().get("HEADRACE_STATE") == self.env["HEADRACE_STATE"]
            return mine and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


def detached_fleet(folder: Path, text: str) -> DetachedFleet:
    """Not started yet; `text` is a fleet file in which {port} stands for the port."""
    port, file = free_port(), folder / "fleet.yaml"
    file.write_text(text.replace("{port}", str(port)))
    return DetachedFleet(file=file, port=port, env=os.environ | {"HEADRACE_STATE": str(folder / "state")})


def title(process: psutil.Process) -> str:
    """Its title and command line; empty when it has just ended."""
    try:
        return " ".join([process.name(), *process.cmdline()])
    except psutil.Error:
        return ""
