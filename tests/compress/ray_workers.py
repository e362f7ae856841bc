"""What two workers of Ray Train make of a student: run by a test in a process of its own, since ray reads how it must
prove who it is when it is imported.
"""

import sys
from pathlib import Path

from rich.console import Console

from cluster.inventory import machine
from headrace.steps import Steps
from headrace.task_ray import task_ray
from tests.compress.lessons import unheard
from tests.compress.test_training import distil, job

WAYS = {"whole": {"workers": 2}, "sharded": {"workers": 2, "sharded": True}}


def main() -> None:
    """Trains the students of `job`, each in a folder below the one named."""
    with task_ray(machine(), Steps(Console(quiet=True))):
        from compress import spread_on_ray

        for name, fields in WAYS.items():
            spread_on_ray.train(job(Path(sys.argv[1]) / name, distil(**fields)), unheard)


if __name__ == "__main__":
    main()
