"""How is one vLLM engine asked, watched and ended?

With the other files vllm_*.py and resumption.py the one place that knows vLLM's inside. Written against vLLM 0.29.0.
"""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import psutil

import routing
from cluster import cores
from deployments import vllm_app
from deployments.continuation import rest
from deployments.fleet import Model
from deployments.frames import Failure, Load, Submit
from deployments.last_words import one_line
from deployments.resumption import Resumption
from deployments.step_shares import StepShares
from deployments.vllm_outputs import Emit, putter, sampling_params
from deployments.vllm_start import EngineFailed, Started, start

READS_MORE = 64
"""Ended requests that are remembered beside as many as run."""


class VllmEngine:
    """One running engine. Made by `start`; every other method belongs to one event loop."""

    def __init__(self, started: Started) -> None:
        engine = started.engine
        self._engine, self._meter, self._claim = engine, started.meter, started.claim
        self._arguments = started.arguments
        config = engine.vllm_config
        self.max_model_len: int = config.model_config.max_model_len
        self.dtype = str(config.model_config.dtype).removeprefix("torch.")
        self.pools: bool = config.model_config.runner_type == "pooling"
        """It gives vectors or classes, and no text."""
        self.vocabulary_size: int = config.model_config.get_vocab_size()
        self.sampling_defaults: dict[str, Any] = config.model_config.get_diff_sampling_param()
        copies = config.parallel_config.data_parallel_size
        self.slots: int = copies * config.scheduler_config.max_num_seqs
        self.step_tokens: int = config.scheduler_config.max_num_batched_tokens
        cache = config.cache_config
        self.kv_tokens: int = copies * (cache.num_gpu_blocks or 0) * cache.block_size
        self.caches: bool = bool(cache.enable_prefix_caching)
        """It keeps prefixes of prompts."""
        self._processes = _processes(engine)
        self._resumption = Resumption(engine)
        self._unread: dict[str, int] = {}
        """By name of a request that was cancelled before its first token: prompt tokens that were to be read."""
        self._devices: int = config.parallel_config.world_size
        self._shares = StepShares(self._owner)
        self._hear_steps()
        self._reads: dict[str, int] = {}
        """By vLLM's key of a request: prompt tokens to read, by what its router thinks is cached."""
        self._cancelled: set[str] = set()
        """Keys of requests that are being cancelled."""
        self._tell_death: Callable[[], None] = _nothing

    @classmethod
    def start(cls, model: Model, *, sharers: int = 1, claims: Path | None = None) -> "VllmEngine":
        """Starts an engine and blocks until it can answer (tens of seconds). Raises EngineFailed.

        `sharers`: engines that may run on this machine's cores at the same time (CPU only); `claims`: the folder in
        which they agree on cores.
        """
        return cls(start(model, sharers=sharers, claims=claims))

    async def application(self) -> vllm_app.Application:
        """vLLM's own HTTP application over this engine."""
        return await vllm_app.build(
            self._engine, self._arguments, self._meter.work_arrived, lambda: self._tell_death(), self.spent_s
        )

    async def submit(self, name: str, request: Submit, emit: Emit) -> str | None:
        """Hands a request to the engine; `emit` then gets its deltas, on this loop, until one with a finish.

        Returns the key for `cancel`; None when the engine refused it (then `emit` got the Failure). When the core dies
        nothing more is emitted, since the request may go on elsewhere: `on_death` tells.
        """
        from vllm.exceptions import VLLMClientError

        number, attempt = request.request, request.attempt
        try:
            queue = await self._add(name, request)
        except (VLLMClientError, ValueError, TypeError) as error:
            emit(Failure(number, attempt, 400, str(error), getattr(error, "parameter", None)))
            return None
        except Exception as error:
            if not self.dead():
                emit(Failure(number, attempt, 503, one_line(error)))
            return None

        self._reads[queue.request_id] = request.read_tokens
        put = putter(number, attempt, emit, partial(self._cut_off, queue.request_id))
        # The collector hands outputs over in the output handler's own turn: no task and no wake-up for each token.
        queue.put = put
        if (early := queue.get_nowait()) is not None:
            put(early)
        return queue.request_id

    async def _add(self, name: str, request: Submit) -> Any:
        """vLLM's queue of the request's outputs. Raises what vLLM raises for a wrong one."""
        # None: as far as the context goes. vLLM's own default of 16 is that of text completions only.
        asked = {"max_tokens": None, **self.sampling_defaults, **request.sampling}
        prompt: dict[str, Any] = {"type": "token", "prompt_token_ids": request.prompt_ids + request.said_ids}
        if request.cache_salt is not None:
            prompt["cache_salt"] = request.cache_salt
        whole = sampling_params(asked, request.stream)
        self._meter.work_arrived()
        order = routing.reading_order(routing.Tier(request.tier), monotonic())
        if not request.said_ids:
            return await self._engine.add_request(name, prompt, whole, priority=order)
        left = sampling_params(rest(asked, len(request.said_ids)), request.stream)
        return await self._resumption.add_request(name, prompt, left, request, whole, order)

    async def cancel(self, key: str) -> None:
        """Ends a request within one step; nothing more is emitted."""
        self._cancelled.add(key)
        state = self._engine.output_processor.request_states.get(key)
        if state is not None and state.is_prefilling:
            self._unread[state.external_req_id] = self._unread_of(key, state)
        try:
            await self._engine.abort(key, internal=True)
        finally:
            self._cancelled.discard(key)

    def _cut_off(self, key: str) -> None:
        """The core ended a request with no answer: if that was not cancelled, it was told to end, and will soon."""
        if key not in self._cancelled:
            self._tell_death()

    def spent_s(self, name: str) -> float:
        """Device-seconds that a request had, by the name that it was given; asked once, when it is over."""
        return self._shares.take(name, self._unread.pop(name, 0))

    def _owner(self, key: str) -> str | None:
        state = self._engine.output_processor.request_states.get(key)
        return None if state is None else state.external_req_id

    def _hear_steps(self) -> None:
        """Divides each step's time before vLLM makes answers of its outputs, so that an end is told with its cost."""
        core = self._engine.engine_core
        pull = core.get_output_async

        async def pulled() -> Any:
            outputs = await pull()
            self._share(outputs)
            return outputs

        core.get_output_async = pulled

    def _share(self, outputs: Any) -> None:
        states, stats = self._engine.output_processor.request_states, outputs.scheduler_stats
        if not states:
            self._shares.idle()
            return
        details = stats.iteration_details if stats is not None else None
        seconds = self._meter.since_step_s(outputs.engine_index) * self._devices
        self._shares.step(seconds, outputs.outputs, details.num_ctx_tokens if details is not None else None)
        if self._shares.remembered > 2 * len(states) + READS_MORE:
            self._shares.forget({state.external_req_id for state in states.values()})

    def load(self) -> Load:
        """How busy the engine is now; credits are for all routers together."""
        unfinished = self.unfinished()
        prefilling_tokens = self._unread_tokens()
        load = self._meter.load(
            unfinished=unfinished,
            prefilling_tokens=prefilling_tokens,
            slots=self.slots,
            kv_tokens=self.kv_tokens,
        )
        load.credit_requests = routing.credit_requests(
            self.slots, unfinished=unfinished, ends_per_s=self._meter.ends_per_s()
        )
        load.room_tokens = self._meter.room_tokens(self.step_tokens)
        load.credit_tokens = routing.credit_tokens(
            load.room_tokens,
            unread_tokens=prefilling_tokens,
            kv_tokens=self.kv_tokens,
            kv_free_tokens=load.kv_free_tokens,
        )
        return load

    def _unread_tokens(self) -> int:
        """Prompt tokens of requests without a first token: what is to be read of them, whole prompts if not known."""
        states, reads = self._engine.output_processor.request_states, self._reads
        if len(reads) > 2 * len(states) + READS_MORE:
            self._reads = reads = {key: reads[key] for key in reads.keys() & states.keys()}
        return sum(self._unread_of(key, state) for key, state in states.items() if state.is_prefilling)

    def _unread_of(self, key: str, state: Any) -> int:
        return min(self._reads.get(key, state.prompt_len), state.prompt_len)

    def costs(self) -> dict[str, float]:
        """What the scaler is told of the steps: their costs once there was one, and how they fill the time."""
        costs = self._meter.costs()
        shares = {"busy_share": self._meter.busy_share(), "computed_share": self._meter.computed_share()}
        return shares if costs is None else shares | asdict(costs)

    def unfinished(self) -> int:
        """Requests taken and not ended."""
        return self._engine.get_num_unfinished_requests()

    def dead(self) -> bool:
        """Whether the core is gone: what is unfinished then stays so."""
        return self._engine.errored

    def on_death(self, tell: Callable[[], None]) -> None:
        """`tell()` is called on this loop, perhaps again, when the core is gone or about to go.

        That is before any answer made of it can be sent.
        """
        self._tell_death = tell
        self._engine.output_handler.add_done_callback(lambda _: tell())

    def steps(self) -> int:
        """Steps made since the start."""
        return self._meter.steps

    def step_s(self) -> float:
        """Seconds that the step under way takes at most, by what was measured."""
        return self._meter.step_s(
            requests=min(self.unfinished(), self.slots),
            prefilling_tokens=min(self._engine.get_num_queued_tokens(), self.step_tokens),
        )

    async def probe(self) -> None:
        """Gives an idle engine one token to make or to pool. Raises EngineFailed when the core dies meanwhile."""
        await (self.vector([0]) if self.pools else self.continue_greedily([0], 1))

    async def logprobs(self, ids: list[int]) -> list[float]:
        """Natural-log probability of each of ids[1:] after the ones before it, from one prefill."""
        from vllm.sampling_params import SamplingParams

        sampling = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        output = await self._final({"type": "token", "prompt_token_ids": ids}, sampling)
        rows = output.prompt_logprobs[1:]
        return [row[token].logprob for row, token in zip(rows, ids[1:], strict=True)]

    async def likeliest(self, ids: list[int], count: int) -> list[dict[int, float]]:
        """For each of ids[1:]: natural-log probabilities of the `count` likeliest tokens there and of itself."""
        from vllm.sampling_params import SamplingParams

        sampling = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=count, detokenize=False)
        output = await self._final({"type": "token", "prompt_token_ids": ids}, sampling)
        return [{token: found.logprob for token, found in row.items()} for row in output.prompt_logprobs[1:]]

    async def continue_greedily(self, ids: list[int], count: int) -> tuple[list[int], list[float]]:
        """`count` greedy tokens after ids, decoded step by step, and their natural-log probabilities."""
        from vllm.sampling_params import SamplingParams

        sampling = SamplingParams(
            max_tokens=count, min_tokens=count, ignore_eos=True, temperature=0.0, logprobs=0, detokenize=False
        )
        choice = (await self._final({"type": "token", "prompt_token_ids": ids}, sampling)).outputs[0]
        tokens = list(choice.token_ids)
        return tokens, [row[token].logprob for row, token in zip(choice.logprobs, tokens, strict=True)]

    async def pooling_task(self) -> str:
        """What the model pools to, by vLLM's name: `embed`, `classify` or another."""
        return self._engine.model_config.get_pooling_task(await self._engine.get_supported_tasks())

    async def vector(self, ids: list[int]) -> list[float]:
        """What a prompt is pooled to: an embedding, or classes' scores; of each token where the model does that."""
        from vllm.pooling_params import PoolingParams

        task: Any = await self.pooling_task()
        outputs = self._engine.encode(
            {"type": "token", "prompt_token_ids": ids}, PoolingParams(task=task), _check_name()
        )
        return (await self._last(outputs)).outputs.data.float().flatten().tolist()

    def encode_chat(self, text: str) -> list[int]:
        """Token ids of one user message, by the model's chat template where it has one."""
        tokenizer = self._engine.get_tokenizer()
        if getattr(tokenizer, "chat_template", None) is None:
            return list(tokenizer.encode(text))
        messages = [{"role": "user", "content": text}]
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        return list(tokenizer.encode(rendered, add_special_tokens=False))

    def shutdown(self) -> None:
        """Ends the engine core and its workers; returns when they are gone."""
        self._engine.shutdown(timeout=1.0)
        if self._claim is not None:
            cores.release(self._claim)

    def kill(self) -> None:
        """Ends the core and its workers now, stopped ones too: those hear nothing else, and watch no parent."""
        for process in self._processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    async def _final(self, prompt: dict[str, Any], sampling: Any) -> Any:
        return await self._last(self._engine.generate(prompt, sampling, _check_name()))

    async def _last(self, outputs: AsyncIterator[Any]) -> Any:
        from vllm.v1.engine.exceptions import EngineDeadError

        self._meter.work_arrived()
        last = None
        try:
            async for output in outputs:
                last = output
        except EngineDeadError as error:
            raise EngineFailed(one_line(error)) from error
        return last


def _check_name() -> str:
    return f"check-{os.urandom(6).hex()}"


def _nothing() -> None:
    """There is nobody to tell."""


def _processes(engine: Any) -> list[psutil.Process]:
    """The core and its workers, as far as they run on this machine and not as Ray's actors."""
    manager = engine.engine_core.resources.engine_manager
    started = [psutil.Process(process.pid) for process in getattr(manager, "processes", ())]
    return [process for core in started for process in (core, *core.children(recursive=True))]
