"""What travels on the link between a router and an engine replica, and in which form?

A frame is one msgpack array. Router to engine: the requests and cancellations of one event-loop turn, and what was
read. Engine to router: the deltas of one engine step and the parts of answers of vLLM's own application, with the
replica's load in the header. Frames of one direction are numbered from 0; a gap means that the peer is not the one it
was.
"""

from typing import Any

import msgspec

VERSION = 6
BEAT_S = 0.8
"""Longest silence of a live peer: each side sends an empty frame when it had nothing to say for so long."""
SILENCE_S = 2.0
"""A peer not heard for so long counts as dead."""
WINDOW_BYTES = 1 << 20
"""Of a call's answer, what an engine may say beyond what the router told to have been taken."""


class Submit(msgspec.Struct, array_like=True, tag="s"):
    """A request, rendered and tokenized, that the engine should run now."""

    request: int
    """Number of the request, unique within its router."""
    attempt: int
    """0 at first; counts the replicas that lost this request before."""
    prompt_ids: list[int]
    sampling: dict[str, Any]
    """Sampling parameters by vLLM's names: only those that the client gave, and `max_tokens`."""
    stream: bool
    """False: one delta at the end."""
    cache_salt: str | None
    """Requests share cached prefixes only with requests of the same salt."""
    tenant: str = ""
    tier: int = 1
    """As in routing.Tier."""
    read_tokens: int = 0
    """Of the prompt and `said_ids`, what the router thinks that the engine's cache does not have."""
    said_ids: list[int] = []
    """What a lost replica said already, to go on after; `sampling` is for the whole answer all the same."""
    sent_characters: int = 0
    """Of the text of those ids, what was sent."""


class Call(msgspec.Struct, array_like=True, tag="h"):
    """A request that vLLM's own HTTP application should answer, in the engine's process."""

    request: int
    """Number of the request, unique within its router, Submits included."""
    attempt: int
    method: str
    path: str
    headers: list[tuple[str, str]]
    """Those that may pass; names in lower case."""
    body: bytes
    prompt_tokens: int
    """Estimated: the engine's tokenizer knows better, later."""
    tenant: str = ""
    tier: int = 1
    """As in routing.Tier."""
    read_tokens: int = 0
    """Of `prompt_tokens`, what the router thinks that the engine's cache does not have."""


class Cancel(msgspec.Struct, array_like=True, tag="c"):
    """A request whose client is gone."""

    request: int


class Took(msgspec.Struct, array_like=True, tag="t"):
    """The reader of a call's answer took some of it. Told in quarters of the window, not for each part."""

    request: int
    size_bytes: int
    """Since the last time."""


class Waiting(msgspec.Struct, array_like=True, frozen=True):
    """What a router has waiting for the engine's model: its next request, and how much there is in all."""

    tenant: str
    weight: float
    """Of the tenant."""
    tier: int
    tokens: int
    """Of the next request, what an engine would have to read."""
    waiting_tokens: int
    waiting_requests: int


class RouterFrame(msgspec.Struct, array_like=True):
    """One message from a router."""

    version: int
    sequence: int
    messages: list[Submit | Call | Cancel | Took]
    heard: int = -1
    """The last of the engine's frames that had come when this one left: credits told before that one are void."""
    waiting: Waiting | None = None
    """None: nothing."""


class Load(msgspec.Struct, array_like=True, kw_only=True):
    """How busy a replica is, at the engine step that the frame belongs to."""

    received: int = 0
    """Submits and Calls that came from the router addressed, up to now: what it sent later is not in these figures."""
    running_requests: int = 0
    waiting_requests: int = 0
    prefilling_tokens: int = 0
    """Prompt tokens to read of requests that have no first token yet; what was read of them counts until then."""
    slots: int = 0
    """Requests that the engine runs at once, at most."""
    credit_requests: int = 0
    """Requests that this router may send now."""
    credit_tokens: int = 0
    """Prompt tokens to read that this router may send now."""
    room_tokens: int = 0
    """What all routers may send together while the engine has nothing to read."""
    kv_tokens: int = 0
    """Tokens that the KV cache holds."""
    kv_free_tokens: int = 0
    prefill_tokens_per_s: float = 0.0
    """Measured; 0 while unknown."""
    prefill_step_tokens: float = 0.0
    """Prompt tokens of the mean step in which that was measured."""
    decode_tokens_per_s: float = 0.0
    prefix_queried_tokens: int = 0
    """Since the start."""
    prefix_hit_tokens: int = 0
    step_age_s: float = 0.0
    """Seconds since the engine's last step; 0 when it has nothing to do."""
    draining: bool = False
    """It finishes what it has and takes nothing new."""
    served: list[tuple[str, int]] = []
    """By tenant, tokens that other routers' requests were served since the last frame to this one."""


class Delta(msgspec.Struct, array_like=True):
    """What one step added to one choice of a request."""

    request: int
    attempt: int
    index: int
    text: str
    token_ids: list[int]
    finish: str | None = None
    """`stop` or `length`; the choice ends here. Always told with the last id, so that no end is left to be said."""
    stop: int | str | None = None
    """The stop string or token id that ended it."""
    cached_tokens: int = 0
    """Prompt tokens that came from the prefix cache."""

    def merge(self, later: "Delta") -> None:
        """Takes in the next delta of the same choice."""
        self.text += later.text
        self.token_ids.extend(later.token_ids)
        self.finish, self.stop = later.finish, later.stop
        self.cached_tokens = later.cached_tokens


class Part(msgspec.Struct, array_like=True):
    """Some of an answer of vLLM's application, in order."""

    request: int
    attempt: int
    body: bytearray
    more: bool
    """False: the answer ends here."""
    status: int = 0
    """HTTP status; in the first part only, like the headers."""
    headers: list[tuple[str, str]] = []
    prompt_tokens: int = 0
    """Prompt tokens that the engine took for this call since the part before."""
    output_tokens: int = 0
    """Tokens that it made for this call since the part before."""
    cached_tokens: int = 0
    """Of `prompt_tokens`, those that came from the prefix cache."""

    def merge(self, later: "Part") -> None:
        """Takes in the next part of the same answer."""
        self.body += later.body
        self.more = later.more
        self.prompt_tokens += later.prompt_tokens
        self.output_tokens += later.output_tokens
        self.cached_tokens += later.cached_tokens


class Spent(msgspec.Struct, array_like=True):
    """What a request had of the engine's devices. Told once, when it is over, however it ended."""

    request: int
    gpu_s: float
    """Its share of each step's time, for each device of the replica; of CPUs, devices are what vLLM takes for such."""


class Failure(msgspec.Struct, array_like=True):
    """A request that the engine did not run to its end."""

    request: int
    attempt: int
    status: int
    """HTTP status: 4xx is the client's fault, 5xx the engine's."""
    message: str
    param: str | None = None


class EngineFrame(msgspec.Struct, array_like=True):
    """One message from an engine replica."""

    version: int
    sequence: int
    load: Load
    deltas: list[Delta] = []
    failures: list[Failure] = []
    goodbye: bool = False
    """The last frame: everything was finished."""
    parts: list[Part] = []
    spent: list[Spent] = []
