"""What might a client send that none should? Requests with wrong bodies, heads and framing, made up from a seed."""

import copy
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.deployments import forwarded


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What one client does with one connection."""

    pieces: list[bytes]
    """Sent one after the other, with a pause between them."""
    answered: bool
    """Whether it must hear something, or see the connection close; else the server may wait for more."""
    what: str


PARTS = [{"role": "user", "content": [{"type": "text", "text": "x"}]}]
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
PLAIN: list[forwarded.Case] = [
    forwarded.chat(max_tokens=5),
    forwarded.chat(messages=PARTS, max_tokens=5, seed=3, logit_bias={"5": 1.0}, stop=["x"], **STREAMED),
    forwarded.text(max_tokens=5, n=2),
    forwarded.text(prompt=[[1, 2], [3]], max_tokens=5, stream=True),
]
OTHERS: list[forwarded.Case] = [case for case in forwarded.ANSWERED.values() if isinstance(case[1], dict)]

ODD: Sequence[Callable[[random.Random], Any]] = (
    lambda chance: None,
    lambda chance: chance.choice([True, False]),
    lambda chance: chance.choice([0, -1, 1, 2**31, 2**32, 2**63 - 1, 2**63, -(2**63), 2**64, 10**40, 10**400]),
    lambda chance: chance.choice([0.0, -0.0, 1e-300, 1e308, 0.1, float("nan"), float("inf"), -float("inf")]),
    lambda chance: chance.choice(["", "x", "\0", "\ud800", "\udfff\ud800", "🚰" * 50, "a" * 20_000, "{{ 1/0 }}"]),
    lambda chance: chance.choice([[], {}, [[]], [None], {"": None}, [{}], {"a": {"b": []}}, ["x", 1], [1, "x"]]),
    lambda chance: [chance.getrandbits(40) for _ in range(chance.randrange(300))],
    lambda chance: nested(chance.randrange(1, 200), chance.random() < 0.5),
    lambda chance: {"url": "http://127.0.0.1:9/x", "image_url": "file:///etc/passwd"},
)  # fmt: skip


def nested(depth: int, lists: bool) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if lists else {"a": value}
    return value


def malformed(chance: random.Random) -> Sent:
    """The next one; the same seed gives the same ones."""
    path, body = copy.deepcopy(chance.choice(PLAIN if chance.random() < 0.5 else OTHERS))
    kind = chance.choice((_odd_values, _odd_bytes, _odd_head, _odd_framing, _odd_line))
    return kind(chance, path, body)


def _request(path: str, content: bytes, *headers: bytes, line: bytes = b"", length: bytes | None = None) -> bytes:
    size = length if length is not None else str(len(content)).encode()
    head = [line or b"POST " + path.encode() + b" HTTP/1.1", b"host: x", *headers, b"content-length: " + size]
    return b"\r\n".join([*head, b"", b""]) + content


def _odd_values(chance: random.Random, path: str, body: Any) -> Sent:
    """JSON whose values, names and shape are not what they should be."""
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        _change_somewhere(chance, body)
    if chance.random() < 0.1:
        body = chance.choice(ODD)(chance)
    text = json.dumps(body)
    if chance.random() < 0.1:  # a name twice
        text = text.replace("{", '{"max_tokens": 3, "model": "tiny", ', 1).replace("}", ', "model": null}', 1)
    headers = [b"content-type: application/json"] if chance.random() < 0.9 else []
    return Sent(pieces=[_request(path, text.encode(), *headers)], answered=True, what="values")


def _change_somewhere(chance: random.Random, body: Any) -> None:
    places = list(_places(body))
    if not places:
        return
    holder, key = chance.choice(places)
    match chance.randrange(4):
        case 0 if isinstance(holder, dict):
            holder[
                chance.choice(["priority", "n", "stream", "echo", "logprobs", "chat_template", "\ud800", "", "x"])
            ] = chance.choice(ODD)(chance)
        case 1:
            del holder[key]
        case _:
            holder[key] = chance.choice(ODD)(chance)


def _places(value: Any) -> list[tuple[Any, Any]]:
    here = list(value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ())
    return [(value, key) for key, _ in here] + [place for _, inner in here for place in _places(inner)]


def _odd_bytes(chance: random.Random, path: str, body: Any) -> Sent:
    """A body of the right length that is no JSON, or JSON of a strange kind."""
    content = chance.choice((_damaged, _strange))(chance, json.dumps(body).encode())
    return Sent(pieces=[_request(path, content)], answered=True, what="bytes")


def _damaged(chance: random.Random, content: bytes) -> bytes:
    where = chance.randrange(len(content))
    match chance.randrange(3):
        case 0:
            return content[:where]
        case 1:
            wrong = bytearray(content)
            for _ in range(chance.randrange(1, 6)):
                wrong[chance.randrange(len(wrong))] = chance.randrange(256)
            return bytes(wrong)
        case _:
            wrong = chance.choice([b"\xff", b"\xc3(", b"\xed\xa0\x80", b"\0", b"NaN", b"//x\n", b"1e999"])
            return content[:where] + wrong + content[where:]


def _strange(chance: random.Random, content: bytes) -> bytes:
    match chance.randrange(5):
        case 0:
            return content.decode().encode(chance.choice(["utf-16", "utf-32", "utf-16-le", "utf-8-sig"]))
        case 1:
            depth = chance.choice([50, 300, 900, 960, 990, 1000, 5000, 100_000])
            opening, closing = chance.choice([(b"[", b"]"), (b'{"a":', b"}")])
            return b'{"model":"tiny","messages":' + opening * depth + b"1" + closing * depth + b"}"
        case 2:
            return b'{"max_tokens":' + b"9" * chance.choice([20, 400, 5000]) + b"," + content[1:]
        case 3:
            return chance.randbytes(chance.randrange(200))
        case _:
            return chance.choice([b"", b" ", b"null", b"[]", b"3", b'""', b"{", b"}", b"{}{}", b"\xef\xbb\xbf"])


HEADERS = (
    b"content-type: text/plain", b"content-type: application/x-www-form-urlencoded", b"content-type:",
    b"accept: \xff\xfe", b"content-type: multipart/form-data; boundary=x", b"content-encoding: gzip",
    b"expect: 100-continue", b"expect: x", b"connection: upgrade\r\nupgrade: websocket",
    b"connection: upgrade\r\nupgrade: h2c", b"connection: close, x", b"host: y", b"x-vllm-priority: -9",
    b"x-data-parallel-rank: 99", b"x-request-id: " + b"a" * 9000, b"a: " + b"b" * 70_000, b"b: \x00", b"c : d",
    b" e: f", b": g", b"h", b"i: j\r\n k", b"l: m\nn: o", b"te: trailers", b"\x80: x", b"p: \x7f\x01",
    b"authorization: Bearer " + b"q" * 3000, b"cookie: " + b"r=s; " * 500,
    b"content-type: application/json; charset=utf-16", b"content-length: 3", b"content-length: 0",
    b"transfer-encoding: chunked", b"transfer-encoding: gzip",
)  # fmt: skip


def _odd_head(chance: random.Random, path: str, body: Any) -> Sent:
    """Headers that are wrong, too long, too many, or say what the body is not."""
    headers = chance.sample(HEADERS, chance.choice([1, 1, 2, 3]))
    if chance.random() < 0.1:
        headers += [b"x-%d: y" % number for number in range(chance.choice([100, 1000, 20_000]))]
    framing = any(
        word in header for header in headers for word in (b"length", b"transfer", b"expect", b"\n", b"upgrade")
    )
    return Sent(pieces=[_request(path, json.dumps(body).encode(), *headers)], answered=not framing, what="head")


def _odd_framing(chance: random.Random, path: str, body: Any) -> Sent:
    """A body whose length is not what it says, in chunks that are none, in pieces, or behind another request."""
    content = json.dumps(body).encode()
    chunked = b"POST " + path.encode() + b" HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
    answered = False
    match chance.randrange(8):
        case 0:
            length = chance.choice(
                [b"-1", b"+5", b"0x10", b"", b"9" * 30, b"1, 2", b"5 5", str(len(content) + 5).encode(), b"1"]
            )
            pieces = [_request(path, content, length=length)]
        case 1:  # two lengths, or a length and chunks: what a smuggler hides behind
            other = chance.choice(
                [b"content-length: 0", b"transfer-encoding: chunked", b"transfer-encoding: x, chunked"]
            )
            pieces = [_request(path, content + b"0\r\n\r\nGET /metrics HTTP/1.1\r\nhost: x\r\n\r\n", other)]
        case 2:
            pieces, answered = [chunked + b"\r\n" + _chunks(chance, content) + b"0\r\n\r\n"], True
        case 3:
            bad = [
                b"zz\r\nxx\r\n",
                b"-2\r\nab\r\n",
                b"5\r\nab\r\n0\r\n\r\n",
                b"f" * 40 + b"\r\n",
                b"2;a=b\r\n{}\r\n0\r\nx: y\r\n\r\n",
            ]
            pieces = [chunked + b"\r\n" + chance.choice([*bad, b"2\r\n{}0\r\n\r\n", b"2\n{}\n0\n\n", b"\r\n\r\n"])]
        case 4:
            whole = _request(path, content)
            cuts = sorted(chance.sample(range(1, len(whole)), min(len(whole) - 1, chance.randrange(1, 6))))
            pieces = [whole[start:end] for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
            answered = True
        case 5:
            whole = _request(path, content)
            pieces = [whole[: chance.randrange(1, len(whole))]]
        case 6:
            pieces, answered = [_request(path, content) * chance.randrange(2, 6)], True
        case _:
            pieces, answered = [_request(path, content) + chance.randbytes(chance.randrange(1, 50))], True
    return Sent(pieces=pieces, answered=answered, what="framing")


def _chunks(chance: random.Random, content: bytes) -> bytes:
    said = b""
    while content:
        size = chance.randrange(1, 40)
        piece, content = content[:size], content[size:]
        said += b"%x\r\n" % len(piece) + piece + b"\r\n"
    return said


METHODS = (
    b"GET", b"PUT", b"DELETE", b"HEAD", b"OPTIONS", b"PATCH", b"TRACE", b"CONNECT", b"PROPFIND", b"BREW", b"get", b"",
    b"\xff", b"P OST", b"PRI",
)  # fmt: skip
TARGETS = (
    b"*", b"/", b"//", b"http://x/v1/models", b"https://u:p@x:99999/health", b"x:443", b"/v1/models/%",
    b"/v1/models/%ff%00", b"/v1/models/tiny", b"/v1/models/..%2f..%2fetc", b"/%76%31/models", b"/v1/../health",
    b"/health?", b"/health?a=b&a=%zz", b"/health#x", b"/\xc3\xa9", b"/v1/models/\xff", b"/v1/chat/completions/",
    b"/V1/MODELS", b"/metrics", b"/ready", b"", b"/" + b"a" * 5000, b"/" + b"a" * 80_000,
    b"/v1/models/" + b"%41" * 5000, b"/v1/messages/x", b"/v1/responses/resp_1",
)  # fmt: skip
VERSIONS = (
    b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/9.9", b"HTTP/1.1 ", b"", b"http/1.1", b"HTTP/1",
    b"ICE/1.0",
)  # fmt: skip


def _odd_line(chance: random.Random, path: str, body: Any) -> Sent:
    """A first line with another method, target or version; or no HTTP at all."""
    if chance.random() < 0.1:
        raw = chance.choice(
            [
                b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                b"\0" * 50,
                b"\r\n" * 9,
            ]
        )
        return Sent(pieces=[raw + chance.randbytes(chance.randrange(30))], answered=False, what="line")
    method = chance.choice(METHODS) if chance.random() < 0.6 else b"POST"
    target = chance.choice(TARGETS) if chance.random() < 0.6 else path.encode()
    version = chance.choice(VERSIONS) if chance.random() < 0.4 else b"HTTP/1.1"
    content = json.dumps(body).encode() if chance.random() < 0.5 else b""
    line = method + b" " + target + b" " + version
    known = method in METHODS[:7] and method != b"HEAD" and version in VERSIONS[:2]
    return Sent(pieces=[_request(path, content, line=line)], answered=known, what="line")
