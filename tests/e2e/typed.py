"""How does a test type a command, as a user would?"""

import subprocess
import sys


def headrace(*words: str, env: dict[str, str], timeout_s: float) -> subprocess.CompletedProcess[str]:
    """`headrace WORDS`, to its end."""
    command = [sys.executable, "-m", "headrace", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout_s, check=False)
