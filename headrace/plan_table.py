"""How does a plan look in a terminal of 80 columns?"""

from collections.abc import Callable, Iterable, Sequence
from math import isfinite

from rich.console import Console
from rich.table import Table
from rich.text import Text

from headrace import plan_served
from headrace.plan_answer import Answer, Replica
from headrace.plan_result import Result
from headrace.plan_training import TrainingRow
from headrace.plan_words import GIB, asked, best, heading, memory, name, number, parts, short_replicas

ABSENT = "-"


def show(result: Result, console: Console) -> None:
    """Prints the plan: what was asked, all side by side where there are several, the best one in full."""
    show_side_by_side(result, console)
    if len(result.answers) > 1:
        console.print()
    found, why = best(result.answers)
    _in_full(result, found, why if len(result.answers) > 1 else "", console)
    for device, rows in result.training.items():
        console.print()
        console.print(Text(f"Training on {device}: {result.training_words}", "bold"))
        console.print(_training(rows))
    if result.notes:
        console.print()
    for note in result.notes:
        console.print(Text(f"! {note}", "yellow"))


def show_side_by_side(result: Result, console: Console) -> None:
    """Prints what was asked, and the answers in a table where there are several."""
    _head(result, console)
    if len(result.answers) > 1:
        console.print(_side_by_side(result))
        console.print(Text(_legend(result), "dim"))
    for line in plan_served.carried(result):
        console.print(Text(line))


def _head(result: Result, console: Console) -> None:
    console.print(Text(f"{result.asked.name}: {heading(result)}", "bold"))
    console.print(Text(f"sizes from {result.asked.origin}", "dim"))
    console.print(Text(asked(result)))
    console.print()


def _in_full(result: Result, answer: Answer, why: str, console: Console) -> None:
    device = answer.device
    facts = f"{memory(device.memory_bytes)}, {number(device.bandwidth_bytes_per_s / 1e9)} GB/s"
    console.print(Text(f"{name(answer, result)} ({facts}){f': {why}' if why else ''}", "bold"))
    table = _table("", "", right=())
    table.show_header = False
    for line in plan_served.all_lines(answer, result):
        table.add_row(Text(line.title, "cyan"), Text(line.text))
    console.print(table)
    console.print()
    count = answer.replica.devices if answer.replica else 1
    bytes_table = _table(f"on each device, of {count}" if count > 1 else "on the device", "GiB", right=(1,))
    *told, (total, total_bytes) = parts(answer)
    for part, count_bytes in told:
        bytes_table.add_row(Text(part), Text(f"{count_bytes / GIB:,.2f}"))
    bytes_table.add_row(Text(total), Text(f"{total_bytes / GIB:,.2f}"), style="bold")
    console.print(bytes_table)


def _side_by_side(result: Result) -> Table:
    columns = _columns(result)
    table = _table("on", *columns, right=range(1, len(columns) + 1), padding=1)
    for answer in result.answers:
        cells = [cell(answer) for cell in columns.values()]
        table.add_row(*map(Text, [name(answer, result), *cells]))
    return table


Cell = Callable[[Answer], str]


def _columns(result: Result) -> dict[str, Cell]:
    """By title. Of a fleet's forms less of their times is told, so that bytes and quality have room."""
    has_rate, served = result.traffic.rate_per_s is not None, bool(result.answers[0].variant.served)
    columns: dict[str, Cell] = {"GiB": _weights} if served else {}
    columns["devices"] = _all_devices if served and has_rate else _devices
    if not served:
        columns["TTFT ms"] = _of_replica(lambda replica: number(1000 * replica.speed.ttft_s))
    columns["ms/token"] = _of_replica(lambda replica: number(1000 * replica.speed.token_s))
    columns["tokens/s"] = _of_replica(lambda replica: number(replica.speed.full_tokens_per_s))
    if not served:
        columns["within"] = _of_replica(lambda replica: f"{1 + replica.speeds.error:.3g}x")
    if has_rate:
        columns["replicas"] = _of_replica(
            lambda replica: ABSENT if replica.sizing is None else short_replicas(replica.sizing)
        )
        columns[f"{result.currency}/M"] = _cost
    if _has_quality(result):
        columns["quality"] = _quality
    return columns


def _legend(result: Result) -> str:
    has_rate, served = result.traffic.rate_per_s is not None, bool(result.answers[0].variant.served)
    if served:
        told = "GiB: of weights; devices: " + ("of all replicas" if has_rate else "of one replica")
        told += "; ms/token: a request alone; tokens/s: a full replica"
    else:
        told = "devices: of one replica; TTFT and ms/token: a request alone; tokens/s: a full replica; within: 9 of 10"
    if has_rate:
        told += f"; {result.currency}/M: per million tokens, prompts and answers"
    if _has_quality(result):
        told += "; quality: " + (plan_served.QUALITY if served else "perplexity over the parent's")
    return told


def _has_quality(result: Result) -> bool:
    """Whether a form has one that is not known by itself."""
    served = len({answer.variant.name for answer in result.answers if answer.variant.served})
    return served > 1 or any(answer.variant.quality for answer in result.answers)


def _of_replica(told: Callable[[Replica], str]) -> Cell:
    return lambda answer: ABSENT if answer.replica is None else told(answer.replica)


def _weights(answer: Answer) -> str:
    return number(answer.variant.model.weight_bytes / GIB)


def _devices(answer: Answer) -> str:
    return "no" if answer.replica is None else str(answer.replica.devices)


def _all_devices(answer: Answer) -> str:
    if answer.replica is None:
        return "no"
    return number(int(answer.replica.all_devices)) if isfinite(answer.replica.all_devices) else ABSENT


def _cost(answer: Answer) -> str:
    return ABSENT if answer.cost is None else number(answer.cost.per_million_tokens)


def _quality(answer: Answer) -> str:
    if answer.variant.served:
        return plan_served.short_quality(answer.variant.served)
    found = answer.variant.quality
    return ABSENT if found is None else f"{found.perplexity_ratio:.2f} ({found.low:.2f}-{found.high:.2f})"


def _training(rows: Sequence[TrainingRow]) -> Table:
    titles = ("", "weights", "grads", "optim.", "activ.", "logits", "teacher", "GiB", "fits")
    table = _table(*titles, right=range(1, 8))
    for row in rows:
        memory_ = row.memory
        counts = (
            memory_.weights_bytes,
            memory_.gradient_bytes,
            memory_.optimizer_bytes,
            memory_.activation_bytes,
            memory_.logits_bytes,
            memory_.teacher_bytes,
            memory_.bytes,
        )
        fits = "yes" if not row.missing_bytes else "no"
        cells = [f"{row.sharding.upper()} x {row.devices}", *(f"{count / GIB:,.1f}" for count in counts), fits]
        table.add_row(*map(Text, cells))
    return table


def _table(*titles: str, right: Iterable[int], padding: int = 2) -> Table:
    table = Table(box=None, padding=(0, padding, 0, 0), header_style="bold")
    for index, title in enumerate(titles):
        table.add_column(
            Text(title), justify="right" if index in right else "left", no_wrap=index in right, overflow="fold"
        )
    return table
