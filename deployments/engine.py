"""What does one engine replica do, from its start to its last request?"""

import asyncio
import logging
import os
from pathlib import Path
from typing import Any

import ray
from ray import serve

from deployments import numbers_check, reference, vector_check
from deployments.core_watch import CoreWatch
from deployments.declare import ENGINE
from deployments.fleet import Model
from deployments.frames import Call, Cancel, Delta, Failure, Load, Spent, Submit, Took
from deployments.gpu_watch import GpuWatch
from deployments.link import EngineEnd
from deployments.rank_check import Misplaced, check_ranks
from deployments.vllm_engine import VllmEngine
from deployments.vllm_start import EngineFailed

MARK = "[headrace] "
"""Begins the line of a failed start that is meant for the user."""

CHECK_CHATS = (
    "A reader who has never seen a steam engine asks how one works. Explain, step by step and in plain words, what "
    "happens between lighting the fire and the wheel turning: the water, the boiler, the valve, the piston, the rod, "
    "the crank, and why the wheel keeps turning between two strokes. Then say what limits its power.",
    "Here are some facts: a train leaves at 9:40 and arrives at 13:05; it stops for 12 minutes in one town and for 8 "
    "minutes in another; the distance is 287 km. Work out how long it was moving and its average speed while moving, "
    "show each step, and check the result by estimating it in another way.",
)
"""Long enough to show wrong kernels that short prompts hide."""

log = logging.getLogger("ray.serve")


@serve.deployment
class Engine:
    """One vLLM engine behind the link. It takes traffic only after its numbers were checked."""

    async def __init__(self, model: Model, sharers: int) -> None:
        self._model = model
        self._draining = False
        self._runs: dict[tuple[bytes, int], str | None] = {}
        """By router and request, vLLM's key; None while it is being handed over."""
        self._names: dict[tuple[bytes, int], str] = {}
        """Of those whose cost was not told yet."""
        self._early: dict[tuple[bytes, int], int] = {}
        """Requests that vLLM may not know of yet, and their tokens to read."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._gpus = GpuWatch.here()
        try:
            if model.nodes > 1:
                check_ranks(model)
            self._engine = VllmEngine.start(model, sharers=sharers, claims=_claims_folder())
            self._watch = CoreWatch(self._engine, self._leave)
            self._verdict = await self._check_numbers()
            self._application = await self._engine.application()
            if self._engine.dead():
                raise EngineFailed("the engine core died after the numbers check")
        except (EngineFailed, Misplaced, numbers_check.WrongNumbers, reference.BadReference) as error:
            raise RuntimeError(f"{MARK}{_name()}: {error}") from None
        self._link = EngineEnd(
            host=ray.util.get_node_ip_address(),
            on_message=self._hear,
            on_lost=self._drop_router,
            load=self._load,
        )

    async def describe(self, router_key: bytes) -> dict[str, Any]:
        """Lets the router with this public key in, and tells it where this replica is and what it can do."""
        self._link.allow(router_key)
        return {
            "replica": serve.get_replica_context().replica_tag,
            "address": self._link.address,
            "key": self._link.public_key,
            "max_model_len": self._engine.max_model_len,
            "slots": self._engine.slots,
            "dtype": self._engine.dtype,
            "caches": self._engine.caches,
            "pooling": await self._engine.pooling_task() if self._engine.pools else None,
            "verified": self._verdict.reference_distance is not None,
            "pid": os.getpid(),
        }

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Read by `autoscaling:ServePolicy`."""
        load = self._load()
        gpus = await asyncio.to_thread(self._gpus.use) if self._gpus.sees_any else None
        return {
            "running_requests": float(load.running_requests),
            "waiting_requests": float(load.waiting_requests),
            "slots": float(load.slots),
            "waiting_tokens": float(load.prefilling_tokens),
            "kv_tokens": float(load.kv_tokens),
            "kv_used_tokens": float(load.kv_tokens - load.kv_free_tokens),
            **self._engine.costs(),
            **({"gpu_busy_share": gpus.busy_share, "gpu_memory_share": gpus.memory_share} if gpus else {}),
        }

    async def check_health(self) -> None:
        """Serve replaces this replica when its event loop leaves this unanswered; the core is watched from there."""

    async def __del__(self) -> None:
        """Finishes what it has, then leaves nothing behind; Serve awaits this."""
        if hasattr(self, "_link"):
            self._draining = True
            self._link.announce()
            while self._engine.unfinished() or self._tasks:
                await asyncio.sleep(0.02)
            await asyncio.sleep(0)
            self._link.close()
        if hasattr(self, "_watch"):
            self._watch.close()
            self._engine.shutdown()

    def _leave(self, reason: str) -> None:
        """The core is dead or hung: nothing can be finished. Routers ask another replica, and Serve starts one."""
        log.error("%s: %s", _name(), reason)
        if hasattr(self, "_link"):
            self._link.close(died=True)
            self._engine.kill()
            os._exit(1)
        # The numbers check gets an error now, and the constructor ends with that.
        self._engine.kill()

    async def _check_numbers(self) -> numbers_check.Verdict:
        prompts = [self._engine.encode_chat(text) for text in CHECK_CHATS]
        if self._engine.pools:
            known = None if "pooler_config" in self._model.engine else reference.load_vectors(Path(self._model.source))
            verdict = await vector_check.check(self._engine, prompts, known)
        else:
            verdict = await numbers_check.check(self._engine, prompts, reference.load(Path(self._model.source)))
        if verdict.reference_distance is None and self._model.require_reference:
            what = "vectors" if self._engine.pools else "log-probabilities"
            raise numbers_check.WrongNumbers(
                f"no reference {what} lie beside the checkpoint, and require_reference is set"
            )
        return verdict

    def _load(self) -> Load:
        load = self._engine.load()
        load.draining = self._draining
        # What is still being read or handed over takes credit, or one turn's credits would be granted twice.
        calls, tokens = self._application.waiting()
        calls, tokens = calls + len(self._early), tokens + sum(self._early.values())
        load.waiting_requests += calls
        load.prefilling_tokens += tokens
        load.credit_requests = max(0, load.credit_requests - calls)
        load.credit_tokens = max(0, load.credit_tokens - tokens)
        return load

    def _hear(self, router: bytes, message: Submit | Call | Cancel | Took) -> None:
        task = asyncio.ensure_future(self._work(router, message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if isinstance(message, Submit):
            self._early[router, message.request] = message.read_tokens
            task.add_done_callback(lambda _: self._early.pop((router, message.request), None))

    async def _work(self, router: bytes, message: Submit | Call | Cancel | Took) -> None:
        if self._engine.dead():  # the router is about to hear of it
            return
        match message:
            case Submit():
                await self._run(router, message)
            case Call():
                await self._application.answer(router, message, self._link)
            case Cancel():
                await self._cancel(router, message.request)
            case Took():
                self._application.took(router, message.request, message.size_bytes)

    async def _run(self, router: bytes, request: Submit) -> None:
        run = (router, request.request)
        self._runs[run] = None
        name = self._names[run] = f"{router.decode()}-{request.request}-{request.attempt}"
        choices, ended = request.sampling.get("n", 1), 0

        def emit(answer: Delta | Failure) -> None:
            nonlocal ended
            if run not in self._runs:
                return
            self._link.say(router, answer)
            ended += isinstance(answer, Delta) and answer.finish is not None
            if ended >= choices or isinstance(answer, Failure):
                self._runs.pop(run, None)
                self._tell_spent(run)

        key = await self._engine.submit(name, request, emit)
        if key is None:
            self._runs.pop(run, None)
        elif run in self._runs:
            self._runs[run] = key
        elif ended < choices:  # cancelled while it was being handed over
            await self._engine.cancel(key)
        if run not in self._runs:
            self._tell_spent(run)

    def _tell_spent(self, run: tuple[bytes, int]) -> None:
        """What a request had of the devices, in the frame of its end."""
        if (name := self._names.pop(run, None)) is not None:
            self._link.say(run[0], Spent(run[1], self._engine.spent_s(name)))

    async def _cancel(self, router: bytes, request: int) -> None:
        self._application.leave(router, request)
        if (key := self._runs.pop((router, request), None)) is not None:
            await self._engine.cancel(key)
            self._tell_spent((router, request))

    def _drop_router(self, router: bytes) -> None:
        self._application.drop(router)
        for lost, request in [run for run in self._runs if run[0] == router]:
            self._hear(lost, Cancel(request))


def _name() -> str:
    """What this replica's deployment serves; a variant's engines know their model only by its own name."""
    return serve.get_replica_context().deployment.removeprefix(ENGINE)


def _claims_folder() -> Path:
    """One for the machine, whatever TMPDIR says: runs side by side agree on cores there."""
    return Path("/tmp") / f"headrace-{os.getuid()}" / "cores"
