"""How does one talk to a served model in a terminal?"""

import sys

import httpx

from headrace.ask import KEY_VARIABLE, Answer, AnswerFailed, authorization, stream
from headrace.authorities import authorities
from headrace.endpoint import endpoint
from headrace.failure import Failure, bad_input

Message = dict[str, str]


def chat(model: str | None, *, url: str | None, name: str, key: str | None) -> None:
    """Talks until Ctrl-D. Raises Failure when there is no endpoint, no such model or no right to it."""
    url = (url or endpoint(name)).rstrip("/").removesuffix("/v1")
    model = _model(url, model, key)
    if sys.stdin.isatty():
        # Line editing and history in the prompt, by being there.
        import readline  # noqa: F401

        print(f"Talking to {model} on {url}. Ctrl-C cancels an answer, Ctrl-D leaves.")
    messages: list[Message] = []
    while (question := _question()) is not None:
        if question.strip():
            messages.append({"role": "user", "content": question})
            messages.append({"role": "assistant", "content": _answer(url, model, messages, key)})


def _question() -> str | None:
    """The next line; None at its end. Ctrl-C discards what was typed."""
    while True:
        try:
            return input("> " if sys.stdin.isatty() else "")
        except EOFError:
            print()
            return None
        except KeyboardInterrupt:
            print()


def _answer(url: str, model: str, messages: list[Message], key: str | None) -> str:
    """Prints the answer as it comes; what came before Ctrl-C or a failure counts as said."""
    answer = Answer()
    try:
        for text in stream(url, {"model": model, "messages": messages}, answer, key):
            print(text, end="", flush=True)
        print(f"\n  ({answer.figures})")
    except KeyboardInterrupt:
        print("\n  (cancelled)")
    except AnswerFailed as error:
        print(f"\n  ({error})")
    return answer.text


def _model(url: str, wanted: str | None, key: str | None) -> str:
    try:
        listed = httpx.get(
            f"{url}/v1/models",
            headers=authorization(key),
            timeout=10.0,
            trust_env=False,
            verify=authorities(url),
        )
        if listed.status_code == 401:
            why = "asks for a key" if key is None else "does not know this key"
            raise bad_input(f"{url} {why}: give one by --key, or in {KEY_VARIABLE}")
        served = {str(entry["id"]): entry for entry in listed.raise_for_status().json()["data"]}
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError) as error:
        raise Failure(f"{url} does not answer as an OpenAI-compatible endpoint: {error}") from None
    model = wanted or next(iter(served), "")
    if model not in served:
        raise bad_input(f"{url} serves no model {model!r}, but: {', '.join(served) or 'none'}")
    if served[model].get("pooling") is not None:
        raise bad_input(
            f"{model!r} writes no text, so it can't be talked to; it is asked at {url}/v1/embeddings and alike"
        )
    return model
