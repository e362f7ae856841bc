"""How is a plan told in words? One title and one text for each thing that was asked."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil, inf, isfinite

from cluster import kv_cache
from cluster.fit import Remedy
from cluster.sizing import Sizing
from cluster.speed import limit
from headrace.plan_answer import Answer, Replica
from headrace.plan_asked import Traffic
from headrace.plan_result import Result
from headrace.plan_variants import Quality

GIB, MIB = 2**30, 2**20
DAY_H = 24


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One thing that was asked, and the answer."""

    title: str
    text: str


def number(value: float) -> str:
    """Three significant digits, thousands parted by commas; whole numbers as they are."""
    if isinstance(value, int) or not isfinite(value):
        return f"{value:,}" if isfinite(value) else "∞"
    digits = max(0, 2 - int(f"{value:.2e}".partition("e")[2])) if value else 0
    return f"{value:,.{min(digits, 6)}f}" if value < 1000 else f"{float(f'{value:.2e}'):,.0f}"


def memory(count_bytes: float) -> str:
    """In GiB or MiB, as drivers and engines tell it."""
    return f"{number(count_bytes / GIB)} GiB" if abs(count_bytes) >= GIB else f"{number(count_bytes / MIB)} MiB"


def many(count: int) -> str:
    """A large count, such as `135 M` or `8.03 B`."""
    return f"{number(count / 1e9)} B" if count >= 1e9 else f"{number(count / 1e6)} M"


def time(seconds: float) -> str:
    """In seconds or milliseconds."""
    return f"{number(seconds)} s" if seconds >= 1 else f"{number(1000 * seconds)} ms"


def between(value: float, error: float, write: Callable[[float], str]) -> str:
    """A time or a rate with what its error leaves open, such as `42 ms (28 ms to 63 ms)`."""
    return f"{write(value)} ({write(value / (1 + error))} to {write(value * (1 + error))})"


def replicas(sizing: Sizing) -> str:
    """How many, and how many if times are shorter or longer by the error."""
    if sizing.replicas is None:
        return "none is enough"
    return f"{sizing.replicas:,}{span(sizing.replicas_if_faster, sizing.replicas_if_slower, str)}"


def span(low: float | None, high: float | None, write: Callable[[float], str]) -> str:
    """What an error leaves open; None: no number is enough."""
    if low == high:
        return ""
    return f" ({'none' if low is None else write(low)} to {'none' if high is None else write(high)})"


def short_replicas(sizing: Sizing) -> str:
    """The same for a narrow column, such as `3 (2-5)`."""
    low, high = sizing.replicas_if_faster, sizing.replicas_if_slower
    return str(sizing.replicas or "none") + ("" if low == high else f" ({low or 'none'}-{high or 'none'})")


def heading(result: Result) -> str:
    """The model in one line."""
    model = result.asked.model
    active = "" if model.experts is None else f" ({many(model.active_parameters)} active)"
    parameters = f"{many(model.parameters)} parameters{active}"
    return (
        f"{model.architecture}, {parameters}, {memory(model.weight_bytes)} of weights, "
        f"{number(kv_cache.bytes_per_token(model) / 1024)} KiB of cache a token"
    )


def asked(result: Result) -> str:
    """The load in one line."""
    traffic = result.traffic
    requests = traffic.requests
    told = f"{requests.prompt_tokens:,} tokens in, {requests.output_tokens:,} out"
    told += "" if traffic.rate_per_s is None else f", {traffic.rate_per_s:.4g} requests/s"
    told += "" if traffic.ttft_s == inf else f", first token within {traffic.ttft_s:g} s (95 of 100)"
    told += "" if traffic.token_s == inf else f", a token every {1000 * traffic.token_s:g} ms"
    return f"{told} ({traffic.origin})"


def name(answer: Answer, result: Result) -> str:
    """What tells an answer from the others of a plan."""
    several = len({each.variant.name for each in result.answers}) > 1
    return f"{answer.device.name}, {answer.variant.name}" if several else answer.device.name


def lines(answer: Answer, result: Result) -> list[Line]:
    """Everything that was asked, in order."""
    traffic = result.traffic
    told = [Line(title="Fits", text=_fits(answer))]
    told += [Line(title="To fit" if not index else "", text=_remedy(one)) for index, one in enumerate(answer.remedies)]
    told.append(Line(title="Layouts", text=_layouts(answer)))
    if (replica := answer.replica) is None:
        return told
    told += [
        Line(title="Batch", text=_batch(answer, replica, traffic)),
        Line(title="Context", text=_context(answer, replica)),
        Line(title="Prefill", text=_prefill(replica, traffic)),
        Line(title="Decode", text=_decode(replica)),
        Line(title="Full", text=_full(replica)),
        Line(title="Times", text=_times(replica)),
    ]
    if (sizing := replica.sizing) is not None:
        told.append(Line(title="Replicas", text=f"{replicas(sizing)} on {_devices(replica, answer)}: {sizing.reason}"))
        told += _machines(answer, replica, sizing)
        told += _at_load(sizing)
        told.append(Line(title="Cost", text=_cost(answer, replica, sizing, result)))
    if answer.variant.quality:
        told.append(Line(title="Quality", text=f"perplexity {quality(answer.variant.quality)} times its parent's"))
    return told


def quality(found: Quality) -> str:
    """A ratio of perplexities with its interval."""
    return f"{found.perplexity_ratio:.3f} ({found.low:.3f} to {found.high:.3f})"


def parts(answer: Answer) -> list[tuple[str, int]]:
    """What lies on each device of the replica, or on one device where no layout holds it; the last is their sum."""
    found = answer.replica.fit if answer.replica else answer.alone
    memory_ = found.memory
    rest = memory_.kv_bytes - found.sequence_bytes
    told = [
        ("weights", memory_.weights_bytes),
        ("activations, estimated", memory_.activation_bytes),
        ("runtime", memory_.runtime_bytes),
        (f"cache of 1 sequence of {answer.settings.context_tokens:,} tokens", found.sequence_bytes),
        ("missing", rest) if rest < 0 else ("more cache", rest),
    ]
    if unused := memory_.usable_bytes - sum(count for _, count in told):
        told.append(("not used: `serve` gives the cache less", unused))
    return [*told, (f"what it may use, {answer.settings.memory_share:.0%} of the device", memory_.usable_bytes)]


def refused(answer: Answer) -> str:
    """Over how many devices layers can't be split, and why; empty where all numbers divide."""
    why: dict[str, list[int]] = {}
    for count, reasons in answer.refused:
        why.setdefault(reasons[0].replace(f"by {count}", "by it"), []).append(count)
    return "; ".join(f"not {_or(counts)}: {reason}" for reason, counts in why.items())


def _or(counts: Sequence[int]) -> str:
    return f"{', '.join(map(str, counts[:-1]))} or {counts[-1]}" if len(counts) > 1 else str(counts[0])


def _devices(replica: Replica, answer: Answer) -> str:
    return f"{replica.devices} x {answer.device.name}" + (f" ({replica.fit.layout})" if replica.devices > 1 else "")


def _fits(answer: Answer) -> str:
    name, context = answer.device.name, f"{answer.settings.context_tokens:,} tokens"
    if answer.alone.fits:
        spare = answer.alone.memory.kv_bytes - answer.alone.sequence_bytes
        return f"yes, on one {name} with a context of {context}; {memory(spare)} are left"
    lack = f"not on one {name}: {memory(answer.alone.missing_bytes)} are missing for a context of {context}"
    if answer.replica is None:
        return f"{lack}; nor split over more of them"
    return f"{lack}; on {_devices(answer.replica, answer)} it does"


def _remedy(one: Remedy) -> str:
    return f"{one.change}{f' ({one.layout})' if one.layout.devices > 1 else ''}: {number(one.largest_batch)} sequences"


def _layouts(answer: Answer) -> str:
    held = [each.layout.tensor for each in answer.splits if each.fits]
    small = [each.layout.tensor for each in answer.splits if not each.fits]
    told = [f"TP {_or(held)} holds it"] if held else []
    told += [f"TP {_or(small)} divides but is too small"] if small else []
    if answer.replica and answer.replica.fit.layout.pipeline > 1:
        told.append(f"{answer.replica.fit.layout} over machines of {answer.place.per_machine} holds it")
    return "; ".join([*told, *([refused(answer)] if answer.refused else [])])


def _batch(answer: Answer, replica: Replica, traffic: Traffic) -> str:
    whole = traffic.requests.prompt_tokens + traffic.requests.output_tokens
    return (
        f"the cache holds {number(replica.fit.largest_batch)} sequences of {answer.settings.context_tokens:,} tokens; "
        f"{replica.slots:,} requests of {whole:,} tokens run at once"
    )


def _context(answer: Answer, replica: Replica) -> str:
    longest, allowed = replica.fit.largest_context, answer.model.context_tokens
    of = "all that the model takes" if longest == allowed else f"of the {allowed:,} that the model takes"
    return f"{longest:,} tokens for a sequence alone, {of}"


def _prefill(replica: Replica, traffic: Traffic) -> str:
    told, error = replica.speed, replica.speeds.error
    ttft = between(told.ttft_s, error, time)
    return (
        f"{ttft} to the first token of {traffic.requests.prompt_tokens:,}, alone; "
        f"{number(told.prefill_tokens_per_s)} tokens/s; limit: {limit(told.prefill)}"
    )


def _decode(replica: Replica) -> str:
    told, error = replica.speed, replica.speeds.error
    each = between(told.token_s, error, time)
    return f"{each} a token, alone: {number(1 / told.token_s)} tokens/s; limit: {limit(told.decode)}"


def _full(replica: Replica) -> str:
    told, error = replica.speed, replica.speeds.error
    rate = between(told.full_tokens_per_s, error, number)
    each = f"{replica.slots:,} at once: {time(told.full_token_s)} a token"
    return f"{each}, {rate} tokens/s; limit: {limit(told.full_decode)}"


def _times(replica: Replica) -> str:
    known = replica.speeds
    return f"by {known.origin}, in {known.dtype}; 9 of 10 are expected within a factor of {1 + known.error:.3g}"


def _machines(answer: Answer, replica: Replica, sizing: Sizing) -> Iterable[Line]:
    """Where there are several: how many, and what fleet.yaml says for it."""
    layout, each = replica.fit.layout, answer.place.per_machine
    across = layout.devices > each
    parts, size = (layout.pipeline, layout.tensor) if across else (1, layout.devices)
    together, part = each // size, "stage" if across else "replica"
    if (count := ceil(parts * (sizing.replicas or 0) / together)) < 2:
        return
    told = (
        f"{count:,} of {each} x {answer.device.name}: {f'{together} {part}s' if together > 1 else f'a {part}'} on each"
    )
    spans = f", nodes: {ceil(parts / together)}" if across else ""
    said = f"tensor_parallel: {layout.tensor}, pipeline_parallel: {layout.pipeline}{spans}"
    yield Line(title="Machines", text=f"{told}; fleet.yaml: {said}")


def _at_load(sizing: Sizing) -> Iterable[Line]:
    if (each := sizing.each) is None:
        return
    yield Line(
        title="At load",
        text=f"each gets {number(each.rate_per_s)}/s (at most {number(sizing.capacity_per_s)}), "
        f"{number(each.running)} run at once; first token after {time(each.ttft_s)}, "
        f"{time(each.ttft_p95_s)} for 95 of 100; {time(each.token_s)} a token",
    )


def _cost(answer: Answer, replica: Replica, sizing: Sizing, result: Result) -> str:
    if sizing.replicas is None:
        return "none: the targets can't be kept"
    hours = sizing.replicas * replica.devices
    told = f"device-hours: {hours:,} an hour, {hours * DAY_H:,} a day"
    if (cost := answer.cost) is None:
        return f"{told}; {answer.device.name} has no price: no cost"
    low, high = (
        None if count is None else cost.per_million_tokens * count / sizing.replicas
        for count in (sizing.replicas_if_faster, sizing.replicas_if_slower)
    )
    return (
        f"{told}; {number(cost.per_hour)} {result.currency} an hour; per million tokens "
        f"{number(cost.per_million_tokens)}{span(low, high, number)}, per million of answers "
        f"{number(cost.per_million_output_tokens)}; {price(result, answer.device.name)}"
    )


def price(result: Result, device: str) -> str:
    """Of one device-hour, with its date."""
    found = result.prices[device]
    kind = "example price" if found.example else "price"
    return f"{kind} of {found.date}: {found.per_hour:g} {result.currency} a device-hour"


def best(answers: Sequence[Answer]) -> tuple[Answer, str]:
    """The cheapest that keeps the targets, where prices are known, or that of fewest devices; and why it is."""

    def worth(answer: Answer) -> tuple[float, float, float]:
        replica = answer.replica
        if replica is None:
            return inf, inf, inf
        price = answer.cost.per_hour if answer.cost else inf
        return price, replica.all_devices, -replica.speed.full_tokens_per_s

    found = min(answers, key=worth)
    return found, "the cheapest" if found.cost else "of the fewest devices, the fastest"
