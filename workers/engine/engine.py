"""The engine: `step()` is schedule, forward, verify, update for all running requests at once.

One thread owns it. Speculation changes speed, never text; a request that fails (NaN) fails alone;
a cancelled request's blocks are free before the next step.
"""

import time
from collections.abc import Callable
from functools import partial

from torch import Tensor

from workers.cache.kv import BlockPool
from workers.config import EngineConfig
from workers.device import Clock, board_name, synchronise, work_clock
from workers.engine.draft_audit import Auditor
from workers.engine.drafter import Drafter
from workers.engine.energy import meter_for
from workers.engine.forward import Computed, Forward
from workers.engine.metrics import Load, Metrics, RequestUsage
from workers.engine.progress import Progress
from workers.engine.scheduler import CacheStats, Scheduler
from workers.engine.sequence import FinishReason, GenerationRequest, Sequence, new_sequence
from workers.engine.token_choice import choose
from workers.memory import resident_growth
from workers.model import quantisation
from workers.model.decoder import Model
from workers.model.sampler import NonFiniteLogits, TokenLogprobs, check_finite, token_logprobs
from workers.speculation.policy import CostCurve
from workers.speculation.proposers import make_proposers
from workers.text.detokenizer import TextStream
from workers.text.structured import GrammarFailed
from workers.text.tokenizer import BadTokenizer, Tokenizer

# Called with a sequence that is about to advance and the hidden states of those tokens.
Watch = Callable[[Sequence, Tensor], None]


class PromptTooLong(ValueError):
    """The prompt leaves no room for a single token of output."""

    def __init__(self, *, prompt_tokens: int, context_length: int) -> None:
        super().__init__(f"{prompt_tokens} prompt tokens do not fit into {context_length}")
        self.prompt_tokens = prompt_tokens
        self.context_length = context_length


class Engine:
    def __init__(
        self,
        config: EngineConfig,
        model: Model,
        tokenizer: Tokenizer,
        *,
        clock: Clock = time.monotonic,
        work: Clock | None = None,
        draft_curve: CostCurve | None = None,
    ) -> None:
        """`draft_curve`: what steps cost, for the drafting policy (default: measured now). `clock`
        dates what users wait for, `work` times the engine (default: `device.work_clock`)."""
        self.config = config
        self.meter = meter_for(board_name(model.device))
        self.model = model
        self.tokenizer = tokenizer
        self.context_length = min(
            model.config.context_length, config.max_context_length, config.kv_capacity
        )
        self._clock = clock
        # What tokens cost is engine time: what other programs take of the machine is none of it.
        self._work_clock = work_clock(model.device) if work is None else work
        self.watchers: list[Watch] = []
        self.forward = Forward(config, model, context_length=self.context_length)
        self.reset()
        self._drafter: Drafter | None = None
        self.draft_bytes: int | None = None
        if config.proposers:
            make = partial(make_proposers, config, model, self.forward.cache, tokenizer)
            proposers, self.draft_bytes = resident_growth(make)
            self._drafter = Drafter(
                proposers,
                curve=draft_curve or self.measure_costs(),
                max_length=config.max_draft_tokens,
                model_depth=config.draft_depth,
            )
            self.watchers.append(self._drafter.watch)

    @classmethod
    def load(cls, config: EngineConfig) -> "Engine":
        model = quantisation.load(config)
        tokenizer = Tokenizer(config.model_dir)
        if tokenizer.vocab_size > model.config.vocab_size:
            raise BadTokenizer(
                f"{config.model_dir}: the tokenizer knows {tokenizer.vocab_size} tokens, "
                f"the model {model.config.vocab_size}"
            )
        return cls(config, model, tokenizer)

    def reset(self) -> None:
        """Forget all requests, cached blocks and counts, as if just started."""
        config = self.config
        self.metrics = Metrics()
        self.meter.restart()
        self.model.take_expert_use()
        self.pool = BlockPool(config.kv_blocks, config.block_size)
        self.scheduler = Scheduler(config, self.pool)
        self._sequences: dict[str, Sequence] = {}
        self._texts: dict[str, TextStream] = {}
        self.auditor = Auditor(share=config.audit_share)

    @property
    def has_work(self) -> bool:
        return self.scheduler.has_work or self.auditor.has_work

    @property
    def load_now(self) -> Load:
        replays = self.auditor.running_id is not None
        return Load(
            running=max(0, len(self.scheduler.running) - replays),
            waiting=len(self.scheduler.waiting),
            kv_cache_usage=self.pool.usage,
        )

    def add(self, request: GenerationRequest) -> None:
        """Queue a request. Raises `PromptTooLong` or `QueueFull`; then nothing has changed."""
        if len(request.prompt) >= self.context_length:
            raise PromptTooLong(
                prompt_tokens=len(request.prompt), context_length=self.context_length
            )
        if self.scheduler.is_full:
            self._end_replay()
        # A grammar knows its end better than a caller who wants to go on.
        goes_on = request.ignore_eos and request.grammar is None
        eos = () if goes_on else self.model.config.eos_token_ids
        sequence = new_sequence(request, arrived_at=self._clock(), eos=eos)
        if request.leader_id is not None:
            sequence.leader = self._sequences.get(request.leader_id)
        self.scheduler.add(sequence)
        self._sequences[request.request_id] = sequence
        decode = partial(self.tokenizer.decode, keeps_special=request.keeps_special)
        self._texts[request.request_id] = TextStream(decode, request.stop)

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
        started = self._work_clock()
        self._place_replay()
        plan = self.scheduler.schedule(self._clock())
        if not plan:
            return []
        if self._drafter is not None:
            drafting = self._work_clock()
            self._drafter.assign(plan, grow=self.scheduler.grow_for_draft)
            self.metrics.totals.draft_seconds += self._work_clock() - drafting
        live = [item for item in plan if not item.sequence.is_replay]
        input_tokens = sum(item.prompt_part for item in live)
        live_tokens = sum(item.total for item in live)
        total_tokens = sum(item.total for item in plan)
        progress: list[Progress] = []
        for computed in self.forward.over(plan):
            told = self._update(computed)
            if not computed.item.sequence.is_replay:
                progress.extend(told)
        # A step without logits has not been waited for; the next one must not be charged for it.
        synchronise(self.model.device)
        self.metrics.observe_step(
            seconds=self._work_clock() - started,
            input_tokens=input_tokens,
            replayed_tokens=total_tokens - live_tokens,
            total_tokens=total_tokens,
        )
        return progress

    def _place_replay(self) -> None:
        """Let a replay take a seat that nobody wants, or take its seat for somebody who waits."""
        replay = self._sequences.get(self.auditor.running_id or "")
        if any(sequence is not replay for sequence in self.scheduler.waiting):
            self._end_replay()
        elif self.scheduler.has_free_seat:
            request = self.auditor.start()
            if request is not None:
                self.add(request)

    def _end_replay(self) -> None:
        replay_id = self.auditor.running_id
        if replay_id is not None:
            self.cancel(replay_id)

    def publish_gauges(self) -> None:
        """Bring the Prometheus gauges and cache counters up to date."""
        metrics = self.metrics
        metrics.observe_load(self.load_now)
        metrics.observe_cache(self.scheduler.stats)
        self.scheduler.stats = CacheStats()
        metrics.observe_experts(self.model.take_expert_use())
        metrics.gap_figures = metrics.gaps.figures()
        metrics.observe_energy(self.meter.joules())

    def measure_costs(self) -> CostCurve:
        """What steps of growing size cost, measured before the first request."""
        return self.forward.costs(
            self.config,
            self.pool,
            room=min(self.config.kv_capacity, self.context_length),
            clock=self._work_clock,
        )

    def _advance(self, sequence: Sequence, count: int, hidden: Tensor) -> None:
        """Note that `count` more tokens of the sequence are computed, and show their states."""
        if sequence.reading is not None:
            sequence.reading.take(sequence.num_computed, hidden[:count], self.model)
        for watch in self.watchers:
            watch(sequence, hidden[:count])
        sequence.num_computed += count
        if not sequence.is_replay:
            self.pool.seal(sequence.table, sequence.tokens, sequence.num_computed)

    def _update(self, computed: Computed) -> list[Progress]:
        """Advance one request by what the step computed for it."""
        item, logits = computed.item, computed.logits
        sequence = item.sequence
        if not item.reaches_end:
            self._advance(sequence, item.count, computed.hidden)
            return []
        try:
            check_finite(computed.peaks)
            if sequence.request.max_tokens == 0:
                return [self._finish_prompt(sequence, computed.hidden)]
            emitted = choose(sequence, logits, computed.peaks, self.model.softmax)
        except (NonFiniteLogits, GrammarFailed) as error:
            return [self._fail(sequence, error)]
        if self._drafter is not None:
            self._drafter.learn(sequence, emitted)
        shown, kept, reason = self._append(sequence, emitted)
        accepted = min(len(emitted) - 1, kept)
        self._count_output(sequence, kept=kept, accepted=accepted)
        self._advance(sequence, item.count + accepted, computed.hidden)
        logprobs = self._logprobs(sequence, logits, emitted[:kept])
        if reason is not None:
            progress = self._finish(sequence, reason)
        else:
            progress = Progress(sequence.request.request_id, "")
        progress.text, progress.logprobs = shown, logprobs
        progress.output_tokens = sequence.output_count
        progress.cached_tokens = sequence.cached_tokens or 0
        if sequence.steps == 1:
            progress.reading = sequence.reading
        worth_telling = shown or logprobs or progress.reading or reason is not None
        return [progress] if worth_telling else []

    def _finish_prompt(self, sequence: Sequence, hidden: Tensor) -> Progress:
        """End a request that wanted nothing but its prompt computed."""
        self._advance(sequence, sequence.remaining, hidden)
        self._count_prompt(sequence)
        progress = self._finish(sequence, FinishReason.LENGTH)
        progress.reading = sequence.reading
        return progress

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
            if kept == len(emitted) and sequence.is_settled:
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
        if sequence.is_replay:
            self.metrics.audited_tokens.inc(kept)
            return
        now, seats = self._clock(), self.config.max_running_requests
        if sequence.first_token_at is None:
            self._count_prompt(sequence)
            sequence.first_token_at = now
            self.metrics.ttft.observe(now - sequence.arrived_at)
        else:
            gap, running = now - sequence.last_token_at, len(self.scheduler.running)
            self.metrics.gaps.observe(gap, running=running, seats=seats)
        sequence.last_token_at = now
        sequence.steps += 1
        sequence.drafted += len(sequence.draft)
        sequence.accepted += accepted
        self.metrics.totals.steps += 1
        self.metrics.totals.output_tokens += kept
        self.metrics.generation_tokens.inc(kept)
        self.metrics.observe_draft(drafted=len(sequence.draft), accepted=accepted)

    def _count_prompt(self, sequence: Sequence) -> None:
        self.metrics.observe_prompt(
            tokens=len(sequence.request.prompt), cached=sequence.cached_tokens or 0
        )

    def _fail(self, sequence: Sequence, failure: Exception | None = None) -> Progress:
        """End a request that cannot go on, and let nothing read what it wrote: it may be NaN."""
        touched = list(sequence.table.block_ids)
        progress = self._finish(sequence, FinishReason.ERROR)
        progress.failure = failure
        self.forward.cache.scrub(self.pool.forget(touched))
        return progress

    def _finish(self, sequence: Sequence, reason: FinishReason) -> Progress:
        sequence.finish_reason = reason
        sequence.draft = []
        if self._drafter is not None:
            ended = reason in (FinishReason.STOP, FinishReason.LENGTH)
            self._drafter.end(sequence, remember=ended and not sequence.is_replay)
        self.scheduler.remove(sequence)
        request_id = sequence.request.request_id
        del self._sequences[request_id], self._texts[request_id]
        usage = self._usage(sequence)
        if sequence.is_replay:
            self._judge(sequence, reason)
        else:
            self.metrics.observe_finished(usage, reason.value)
            self.auditor.consider(sequence, reason)
        return Progress(request_id, "", finish_reason=reason, usage=usage)

    def _judge(self, sequence: Sequence, reason: FinishReason) -> None:
        if reason is FinishReason.CANCELLED:
            self.auditor.put_back()
            return
        verdict = self.auditor.judge(sequence)
        if verdict is not None:
            self.metrics.observe_audit(verdict)

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
