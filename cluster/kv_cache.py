"""How many blocks of cache does a sequence take, and how many sequences fit? As vLLM 0.29 allocates them.

All layers draw from one pool of blocks of the same size. Layers that are alike form groups of equal length, and a
block holds the same tokens of each layer of one group (v1/core/kv_cache_utils.py, v1/kv_cache_interface.py).
Sizes are those on each of the devices that layers are split over; pipelines are not known here.
"""

from collections import Counter
from dataclasses import dataclass, replace
from math import ceil, prod

from cluster.model import Attention, LatentAttention, Mixer, Model, Recurrence

BLOCK_TOKENS = 16
"""vLLM's default on CUDA."""
IN_FLIGHT_TOKENS = 2 * 8192
"""Of two steps at once, each with what vLLM takes in one on large GPUs."""
LATENT_MULTIPLE = 128
"""To which blocks of a model with latent attention and states are rounded (platforms/interface.py)."""
PADDING_BELOW = 1.5
"""Where one kind of layer is not this much more frequent than another, groups are as long as the more frequent."""


class NotAllocated(ValueError):
    """A cache that vLLM does not make; one line says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """How an engine cuts its cache into blocks. The defaults are vLLM's on large CUDA GPUs."""

    tensor_parallel: int = 1
    block_tokens: int = BLOCK_TOKENS
    """In a block of an attention layer, unless states need longer ones. On CPUs 128, with latent attention 16."""
    kernel_tokens: int = 16
    """The shortest block that its attention kernel reads, which windowed layers have: 32 on CPUs."""
    kv_bits: int | None = None
    """Of a cached value; None: the model's own."""
    state_bits: int | None = None
    """Of a state's values; None: the model's own. 32 on CPUs that compute in bfloat16."""
    in_flight_tokens: int = IN_FLIGHT_TOKENS
    """Of the steps that may run at once, 2 with asynchronous scheduling, each of max_num_batched_tokens: blocks that
    left a window are freed after those."""
    keeps_prefixes: bool = True
    """Prefix caching: beside attention, a state then takes a second block."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """What a block holds of one layer."""

    bytes: int
    tokens: int | None
    """None: a state, whatever the number of tokens."""
    window_tokens: int | None = None
    is_chunked: bool = False
    is_latent: bool = False

    state_blocks: int = 1

    def blocks(self, context_tokens: int, in_flight_tokens: int) -> int:
        """The most that a sequence takes while its context grows to this many tokens."""
        if self.tokens is None:
            return self.state_blocks
        if self.window_tokens is None:
            return ceil(context_tokens / self.tokens)
        if self.is_chunked:
            return ceil(min(self.window_tokens + in_flight_tokens, context_tokens) / self.tokens)
        # One more, as a window may begin inside a block.
        return ceil(min(self.window_tokens - 1 + in_flight_tokens, context_tokens) / self.tokens) + 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """A model's blocks on one device."""

    groups: tuple[Page, ...]
    """Of each group one layer's page: a sequence has a table of blocks for each."""
    block_bytes: int
    in_flight_tokens: int

    def blocks_of_sequence(self, context_tokens: int) -> int:
        """What a sequence takes while its context grows to this many tokens."""
        return sum(page.blocks(context_tokens, self.in_flight_tokens) for page in self.groups)

    def bytes_of_sequence(self, context_tokens: int) -> int:
        """The same in bytes: whole blocks."""
        return self.blocks_of_sequence(context_tokens) * self.block_bytes

    def max_concurrency(self, kv_bytes: int, context_tokens: int) -> float:
        """How many sequences of this length fit in this much memory, as vLLM says at its start."""
        return kv_bytes // self.block_bytes / self.blocks_of_sequence(context_tokens)


def bytes_per_token(model: Model, *, tensor_parallel: int = 1, kv_bits: int | None = None) -> int:
    """What one more token adds while it is in every layer's window. States do not grow."""
    cut = Cut(tensor_parallel=tensor_parallel, kv_bits=kv_bits)
    return sum(_token_bytes(mixer, model, cut) for mixer in model.mixers)


def pool(model: Model, cut: Cut) -> Pool:
    """Which groups the layers form, and what a block takes. Raises NotAllocated."""
    pages = Counter(_pages(model, cut))
    if not pages:
        raise NotAllocated(f"{model.architecture}: has no layer that looks back")
    if _is_one_type(tuple(pages)):
        groups, block_bytes = (max(pages, key=lambda page: page.bytes),), _bytes(pages)
    else:
        groups, block_bytes = _grouped(_same_bytes(pages))
    return Pool(groups=groups, block_bytes=block_bytes, in_flight_tokens=cut.in_flight_tokens)


def _pages(model: Model, cut: Cut) -> list[Page]:
    states = [_state_bytes(mixer, cut) for mixer in model.mixers if isinstance(mixer, Recurrence)]
    looks = [mixer for mixer in model.mixers if not isinstance(mixer, Recurrence)]
    state = Page(bytes=max(states, default=0), tokens=None)
    if states and looks:
        cut, state = _aligned(looks[0], model, cut, state.bytes)
    return [state if isinstance(mixer, Recurrence) else _page(mixer, model, cut) for mixer in model.mixers]


def _page(mixer: Attention | LatentAttention, model: Model, cut: Cut) -> Page:
    each = _token_bytes(mixer, model, cut)
    if isinstance(mixer, LatentAttention):
        return Page(bytes=each * cut.block_tokens, tokens=cut.block_tokens, is_latent=True)
    slides = mixer.window_tokens is not None and not mixer.is_chunked
    tokens = cut.kernel_tokens if slides else cut.block_tokens
    window, chunked = mixer.window_tokens, mixer.is_chunked
    return Page(bytes=each * tokens, tokens=tokens, window_tokens=window, is_chunked=chunked)


def _token_bytes(mixer: Mixer, model: Model, cut: Cut) -> int:
    bits = cut.kv_bits or model.kv_bits
    match mixer:
        case Attention():
            heads = max(1, mixer.kv_heads // cut.tensor_parallel)
            return heads * (mixer.head_dim + mixer.value_dim) * bits // 8
        case LatentAttention():
            # All heads share it: every device holds it whole.
            return (mixer.latent_rank + mixer.rope_dim) * bits // 8
        case Recurrence():
            return 0


def _state_bytes(mixer: Recurrence, cut: Cut) -> int:
    """On one device; groups that heads on several devices share are repeated."""
    devices = cut.tensor_parallel
    (conv, conv_bits), (state, state_bits) = mixer.states
    repeated = devices - mixer.groups if mixer.groups and mixer.groups % devices else 0
    channels = conv[1] + 2 * repeated * state[-1]
    return (conv[0] * (channels // devices) * conv_bits + prod(state) // devices * (cut.state_bits or state_bits)) // 8


def _aligned(look: Mixer, model: Model, cut: Cut, state_bytes: int) -> tuple[Cut, Page]:
    """Blocks long enough that attention's page holds a state, and that state's page."""
    each = _token_bytes(look, model, cut)
    multiple = max(cut.kernel_tokens, cut.block_tokens)
    if isinstance(look, LatentAttention):
        multiple = max(multiple, LATENT_MULTIPLE)
    tokens = max(cut.block_tokens, multiple * ceil(state_bytes / (multiple * each)))
    return replace(cut, block_tokens=tokens), Page(
        bytes=tokens * each, tokens=None, state_blocks=1 + cut.keeps_prefixes
    )


def _is_one_type(pages: tuple[Page, ...]) -> bool:
    """Whether all layers need blocks alike, so that one block table serves them."""
    return len({(page.tokens, page.window_tokens, page.is_chunked) for page in pages}) == 1


def _same_bytes(pages: Counter[Page]) -> Counter[Page]:
    """Pages as large as the largest: by more tokens where that comes out even, else by padding."""
    largest = max(page.bytes for page in pages)
    made = Counter[Page]()
    for page, count in pages.items():
        times, rest = divmod(largest, page.bytes)
        if rest and page.is_latent:
            raise NotAllocated(f"a block of latent attention ({page.bytes} bytes) does not divide one of {largest}")
        tokens = page.tokens if page.tokens is None or rest else page.tokens * times
        made[replace(page, bytes=largest, tokens=tokens)] += count
    return made


def _grouped(pages: Counter[Page]) -> tuple[tuple[Page, ...], int]:
    """A page for each group, and the bytes of a block."""
    fewest, most = min(pages.values()), max(pages.values())
    length = most if most < fewest * PADDING_BELOW else fewest
    tables = {page: ceil(count / length) for page, count in pages.items()}
    longest = max(ceil(count / tables[page]) for page, count in pages.items())
    groups = tuple(page for page, times in tables.items() for _ in range(times))
    return groups, longest * groups[0].bytes


def _bytes(pages: Counter[Page]) -> int:
    return sum(page.bytes * count for page, count in pages.items())
