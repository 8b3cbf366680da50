"""The engine: `step()` is schedule, forward, verify, update for all running requests at once.

One thread owns it. Speculation changes speed, never text; a request that fails (NaN) fails alone;
a cancelled request's blocks are free before the next step.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from workers.attention import Bucket, Span, arrange, build_bucket
from workers.choice import choose
from workers.config import EngineConfig
from workers.kv import BlockPool, BlockTable
from workers.metrics import Metrics, RequestUsage
from workers.model import Batch, Model, load_model
from workers.sampler import NonFiniteLogits, TokenLogprobs, check_finite, token_logprobs
from workers.scheduler import CacheStats, Scheduled, Scheduler
from workers.sequence import FinishReason, GenerationRequest, Sequence, new_sequence
from workers.speculation.drafter import Drafter
from workers.speculation.policy import CostCurve
from workers.structured import GrammarFailed
from workers.text import TextStream
from workers.tokenizer import Tokenizer

CURVE_REPEATS = 3

Clock = Callable[[], float]


class PromptTooLong(ValueError):
    """The prompt leaves no room for a single token of output."""

    def __init__(self, *, prompt_tokens: int, context_length: int) -> None:
        super().__init__(f"{prompt_tokens} prompt tokens do not fit into {context_length}")
        self.prompt_tokens = prompt_tokens
        self.context_length = context_length


@dataclass(slots=True)
class Progress:
    """What one step gave one request; `usage` comes with the finish reason, at the end."""

    request_id: str
    text: str
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    usage: RequestUsage | None = None
    failure: Exception | None = None


@dataclass(frozen=True, slots=True)
class Load:
    running: int
    waiting: int
    kv_cache_usage: float


class Engine:
    def __init__(
        self,
        config: EngineConfig,
        model: Model,
        tokenizer: Tokenizer,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        self.config = config
        self.model = model
        self.tokenizer = tokenizer
        self.context_length = min(
            model.config.context_length, config.max_context_length, config.kv_capacity
        )
        self._clock = clock
        self.reset()
        self._drafter: Drafter | None = None
        if config.speculation == "ngram":
            self._drafter = Drafter(config, self.measure_costs())

    @classmethod
    def load(cls, config: EngineConfig) -> "Engine":
        torch.set_num_threads(config.threads)
        return cls(config, load_model(config.model_dir), Tokenizer(config.model_dir))

    def reset(self) -> None:
        """Forget all requests, cached blocks and counts, as if just started."""
        config = self.config
        self.metrics = Metrics()
        self.pool = BlockPool(config.kv_blocks, config.block_size)
        self.scheduler = Scheduler(config, self.pool)
        self._cache = self.model.new_cache(
            num_blocks=config.kv_blocks, block_size=config.block_size
        )
        self._sequences: dict[str, Sequence] = {}
        self._texts: dict[str, TextStream] = {}

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work

    @property
    def load_now(self) -> Load:
        return Load(
            running=len(self.scheduler.running),
            waiting=len(self.scheduler.waiting),
            kv_cache_usage=self.pool.usage,
        )

    def add(self, request: GenerationRequest) -> None:
        """Queue a request. Raises `PromptTooLong` or `QueueFull`; then nothing has changed."""
        if len(request.prompt) >= self.context_length:
            raise PromptTooLong(
                prompt_tokens=len(request.prompt), context_length=self.context_length
            )
        eos = () if request.ignore_eos else self.model.config.eos_token_ids
        sequence = new_sequence(request, arrived_at=self._clock(), eos=eos)
        if request.leader_id is not None:
            sequence.leader = self._sequences.get(request.leader_id)
        self.scheduler.add(sequence)
        self._sequences[request.request_id] = sequence
        self._texts[request.request_id] = TextStream(self.tokenizer.decode, request.stop)

    def cancel(self, request_id: str) -> bool:
        """End a request now and free its blocks; False if it is not here any more."""
        sequence = self._sequences.get(request_id)
        if sequence is None:
            return False
        self._finish(sequence, FinishReason.CANCELLED)
        return True

    def abort_all(self) -> list[Progress]:
        """End every request after a failure that cannot be pinned on one of them."""
        return [self._fail(sequence) for sequence in list(self._sequences.values())]

    def step(self) -> list[Progress]:
        """Advance every scheduled request and return what became of them."""
        started = self._clock()
        plan = self.scheduler.schedule(started)
        if not plan:
            return []
        if self._drafter is not None:
            self._drafter.assign(plan, grow=self.scheduler.grow_for_draft)
        plan, batch = self._build_batch(plan)
        input_tokens = sum(_prompt_part(item) for item in plan)
        logits = self.model.forward(batch, self._cache)
        best = logits.argmax(-1).tolist()
        progress: list[Progress] = []
        first_row = 0
        for item in plan:
            rows = 1 + len(item.sequence.draft) if item.reaches_end else 0
            part = slice(first_row, first_row + rows)
            first_row += rows
            progress.extend(self._update(item, logits[part], best[part]))
        self.metrics.observe_step(
            seconds=self._clock() - started,
            input_tokens=input_tokens,
            total_tokens=len(batch.tokens),
        )
        return progress

    def publish_gauges(self) -> None:
        """Bring the Prometheus gauges and cache counters up to date."""
        load, stats, metrics = self.load_now, self.scheduler.stats, self.metrics
        metrics.running.set(load.running)
        metrics.waiting.set(load.waiting)
        metrics.kv_cache_usage.set(load.kv_cache_usage)
        metrics.preemptions.inc(stats.preemptions)
        metrics.prefix_queries.inc(stats.queried_tokens)
        metrics.prefix_hits.inc(stats.hit_tokens)
        self.scheduler.stats = CacheStats()

    def measure_costs(self) -> CostCurve:
        """Time steps of growing size on scratch blocks, which are zeroed again."""
        limit = min(self.config.token_budget, self.config.kv_capacity, self.context_length)
        scratch = BlockTable(root=b"")
        if not self.pool.grow(scratch, limit):
            raise RuntimeError("costs are measured before the first request")

        def time_step(tokens: int) -> float:
            span = Span(scratch.block_ids, 0, tokens)
            bucket = build_bucket(
                [span],
                start=0,
                block_size=self.config.block_size,
                group=self.model.config.group,
            )
            positions = torch.arange(tokens)
            batch = Batch(
                tokens=torch.zeros(tokens, dtype=torch.int64),
                positions=positions,
                slots=self._slots(scratch, range(tokens)),
                buckets=[bucket],
                logit_rows=positions,
            )
            started = time.perf_counter()
            self.model.forward(batch, self._cache)
            return time.perf_counter() - started

        curve = CostCurve.measured(time_step, repeats=CURVE_REPEATS, limit=limit)
        touched = list(scratch.block_ids)
        self.pool.release(scratch)
        self._cache.scrub(touched)
        return curve

    def _slots(self, table: BlockTable, positions: range) -> Tensor:
        size = self.config.block_size
        return torch.tensor(
            [table.block_ids[position // size] * size + position % size for position in positions]
        )

    def _build_batch(self, plan: list[Scheduled]) -> tuple[list[Scheduled], Batch]:
        """The step's tensors, and the plan in the order of their rows."""
        spans = [
            Span(item.sequence.table.block_ids, item.sequence.num_computed, item.total)
            for item in plan
        ]
        ordered: list[Scheduled] = []
        buckets = []
        start = 0
        for indices in arrange(spans, self.config.block_size):
            members = [spans[index] for index in indices]
            bucket = build_bucket(
                members,
                start=start,
                block_size=self.config.block_size,
                group=self.model.config.group,
            )
            start = bucket.stop
            buckets.append(bucket)
            ordered.extend(plan[index] for index in indices)
        return ordered, self._flatten(ordered, buckets)

    def _flatten(self, plan: list[Scheduled], buckets: list[Bucket]) -> Batch:
        tokens: list[int] = []
        positions: list[int] = []
        slots: list[Tensor] = []
        rows: list[int] = []
        for item in plan:
            sequence, first = item.sequence, item.sequence.num_computed
            last = first + item.count
            tokens += sequence.tokens[first:last] + sequence.draft
            positions += range(first, first + item.total)
            slots.append(self._slots(sequence.table, range(first, first + item.total)))
            if item.reaches_end:
                rows += range(len(tokens) - len(sequence.draft) - 1, len(tokens))
        return Batch(
            tokens=torch.tensor(tokens),
            positions=torch.tensor(positions),
            slots=torch.cat(slots),
            buckets=buckets,
            logit_rows=torch.tensor(rows, dtype=torch.int64),
        )

    def _update(self, item: Scheduled, logits: Tensor, best: list[int]) -> list[Progress]:
        """Advance one request by what the step computed for it."""
        sequence = item.sequence
        if not item.reaches_end:
            sequence.num_computed += item.count
            self.pool.seal(sequence.table, sequence.tokens, sequence.num_computed)
            return []
        try:
            check_finite(logits)
            emitted = choose(sequence, logits, best)
        except (NonFiniteLogits, GrammarFailed) as error:
            return [self._fail(sequence, error)]
        if self._drafter is not None:
            self._drafter.learn(sequence, emitted)
        shown, kept, reason = self._append(sequence, emitted)
        accepted = min(len(emitted) - 1, kept)
        self._count_output(sequence, kept=kept, accepted=accepted)
        sequence.num_computed += item.count + accepted
        self.pool.seal(sequence.table, sequence.tokens, sequence.num_computed)
        logprobs = self._logprobs(sequence, logits, emitted[:kept])
        if reason is not None:
            finished = self._finish(sequence, reason)
            finished.text, finished.logprobs = shown, logprobs
            return [finished]
        if shown or logprobs:
            return [Progress(sequence.request.request_id, shown, logprobs)]
        return []

    def _append(
        self, sequence: Sequence, emitted: list[int]
    ) -> tuple[str, int, FinishReason | None]:
        """Take tokens one by one until the request ends: text to show, tokens kept, the end."""
        request = sequence.request
        text = self._texts[request.request_id]
        shown = ""
        for kept, token in enumerate(emitted, start=1):
            sequence.tokens.append(token)
            if token in sequence.end_tokens:
                return shown + text.flush(), kept, FinishReason.STOP
            shown += text.push(token, may_stop=sequence.output_count > request.min_tokens)
            if text.stopped:
                return shown, kept, FinishReason.STOP
            if kept == len(emitted) and sequence.has_complete_grammar:
                return shown + text.flush(), kept, FinishReason.STOP
            if self._is_at_limit(sequence):
                return shown + text.flush(), kept, FinishReason.LENGTH
        return shown, len(emitted), None

    def _is_at_limit(self, sequence: Sequence) -> bool:
        full = len(sequence.tokens) >= self.context_length
        return full or sequence.output_count >= sequence.request.max_tokens

    def _logprobs(
        self, sequence: Sequence, logits: Tensor, tokens: list[int]
    ) -> list[TokenLogprobs]:
        count = sequence.request.sampling.logprobs
        if count is None:
            return []
        return [token_logprobs(logits[i], token, count) for i, token in enumerate(tokens)]

    def _count_output(self, sequence: Sequence, *, kept: int, accepted: int) -> None:
        if sequence.first_token_at is None:
            sequence.first_token_at = self._clock()
            self.metrics.observe_first_token(
                prompt_tokens=len(sequence.request.prompt),
                cached=sequence.cached_tokens or 0,
                ttft_s=sequence.first_token_at - sequence.arrived_at,
            )
        sequence.steps += 1
        sequence.drafted += len(sequence.draft)
        sequence.accepted += accepted
        self.metrics.totals.steps += 1
        self.metrics.totals.output_tokens += kept
        self.metrics.generation_tokens.inc(kept)
        self.metrics.observe_draft(drafted=len(sequence.draft), accepted=accepted)

    def _fail(self, sequence: Sequence, failure: Exception | None = None) -> Progress:
        """End a request that cannot go on, and let nothing read what it wrote: it may be NaN."""
        touched = list(sequence.table.block_ids)
        progress = self._finish(sequence, FinishReason.ERROR)
        progress.failure = failure
        self._cache.scrub(self.pool.forget(touched))
        return progress

    def _finish(self, sequence: Sequence, reason: FinishReason) -> Progress:
        sequence.finish_reason = reason
        sequence.draft = []
        self.scheduler.remove(sequence)
        request_id = sequence.request.request_id
        del self._sequences[request_id], self._texts[request_id]
        usage = self._usage(sequence)
        self.metrics.observe_finished(usage, reason.value)
        return Progress(request_id, "", finish_reason=reason, usage=usage)

    def _usage(self, sequence: Sequence) -> RequestUsage:
        now = self._clock()
        admitted = sequence.admitted_at if sequence.admitted_at is not None else now
        first_token = sequence.first_token_at if sequence.first_token_at is not None else now
        return RequestUsage(
            prompt_tokens=len(sequence.request.prompt),
            completion_tokens=sequence.output_count,
            cached_tokens=sequence.cached_tokens or 0,
            drafted=sequence.drafted,
            accepted=sequence.accepted,
            steps=sequence.steps,
            queue_ms=(admitted - sequence.arrived_at) * 1e3,
            prefill_ms=(first_token - admitted) * 1e3,
            decode_ms=(now - first_token) * 1e3,
        )


def _prompt_part(item: Scheduled) -> int:
    """How many tokens of this step belong to the prompt."""
    start = item.sequence.num_computed
    return max(0, min(start + item.count, len(item.sequence.request.prompt)) - start)
