"""What is one line of a usage journal?"""

import msgspec


class Line(msgspec.Struct, array_like=True, frozen=True):
    """What a request used, or more that became known of it later: lines add up."""

    at_s: float
    """Since 1970."""
    tenant: str
    key: str
    """The id of its key; empty where nobody needs one."""
    model: str
    variant: str
    requests: int
    """1 in the first line of a request, then 0."""
    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    gpu_s: float


encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(Line).decode
