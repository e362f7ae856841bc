"""How are simulations run: one here, many at the same time as Ray tasks?"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from autoscaling import StepFit, Targets
from cluster.inventory import machine
from cluster.step_work import Chunk
from headrace.simulate_asked import ALONE, ORACLE, OURS, Asked
from headrace.steps import Steps
from headrace.task_ray import task_ray
from simulation.baselines import BASELINES
from simulation.fleet import simulate
from simulation.oracle import oracle
from simulation.outcome import Digest, digest
from simulation.policy import Policy, headrace
from simulation.setup import Setup
from simulation.trace import Trace
from simulation.variants import Form, simulate_variants

FEW_REQUESTS = 50_000
"""Of all jobs together: played before a Ray of its own would have started (a million take 81 s of a core)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """One simulation."""

    asked: Asked
    seed: int
    trace: Trace
    setup: Setup
    targets: Targets
    variants: tuple[Form, ...] = ()
    """With the model itself, which `setup` is of; nothing where it has none."""


def run(jobs: Sequence[Job], console: Console) -> list[Digest]:
    """The digests in the order of the jobs. Raises Failure where Ray does not start."""
    if len(jobs) == 1 or sum(job.trace.requests for job in jobs) <= FEW_REQUESTS:
        return _in_turn(jobs, console)
    with task_ray(machine(), Steps(console)):
        import ray

        task = ray.remote(num_cpus=1)(played)
        waiting = [task.remote(job) for job in jobs]
        with _shown(console, len(jobs)) as tell:
            left = list(waiting)
            while left:
                _, left = ray.wait(left)
                tell(len(jobs) - len(left))
            return ray.get(waiting)


def _in_turn(jobs: Sequence[Job], console: Console) -> list[Digest]:
    with _shown(console, 100 * len(jobs)) as tell:
        return [
            played(job, lambda share, before=100 * number: tell(before + round(100 * share)))
            for number, job in enumerate(jobs)
        ]


def played(job: Job, tell: Callable[[float], None] = lambda share: None) -> Digest:
    """One simulation from begin to end."""
    if job.variants and job.asked.name == OURS:
        return digest(simulate_variants(job.trace, job.variants, job.targets, seed=job.seed, tell=tell), job.targets)
    policy = _policy(job)
    return digest(simulate(job.trace, job.setup, policy, job.targets, seed=job.seed, tell=tell), job.targets)


def step_costs(setup: Setup) -> StepFit:
    """What engines of the setup would measure over steps of all kinds."""
    fit = StepFit()
    for sequences in (1, 4, 16, 64):
        for prompt_tokens in (0, 64, 512, 2048):
            chunks = [Chunk(new_tokens=1, context_tokens=1024, count=sequences)]
            if prompt_tokens:
                chunks.append(Chunk(new_tokens=prompt_tokens, context_tokens=0))
            fit.add(setup.step(chunks), sequences=sequences, prompt_tokens=prompt_tokens)
    return fit


def _policy(job: Job) -> Policy:
    if job.asked.name in (OURS, ALONE):
        return headrace(job.targets)
    if job.asked.name != ORACLE:
        return BASELINES[job.asked.name].policy(job.asked.knob)
    costs = step_costs(job.setup).costs()
    assert costs is not None
    margin = job.asked.knob or 1.0
    return oracle(job.trace, costs, token_s=job.targets.token_s, startup_s=job.setup.startup_s, margin=margin)


@contextmanager
def _shown(console: Console, total: int) -> Iterator[Callable[[int], None]]:
    columns = TextColumn("simulating"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total)
        yield lambda done: progress.update(task, completed=done)
