"""What the engine counts: running totals for prices, and Prometheus series under vLLM's names."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from workers.engine.gaps import GapFigures, Gaps
from workers.engine.redraw_verdict import Verdict
from workers.engine.scheduler import CacheStats
from workers.engine.totals import Totals
from workers.model.experts import ExpertUse

PREFIX = "tokenhouse_worker_"
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0)
TOKEN_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 1.0, 2.5)
TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestUsage:
    """What one finished request used. Milliseconds are on the engine's clock."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    drafted: int
    accepted: int
    steps: int
    queue_ms: float
    prefill_ms: float
    decode_ms: float


@dataclass(frozen=True, slots=True)
class Load:
    running: int
    waiting: int
    kv_cache_usage: float


class Metrics:
    """Totals plus the Prometheus registry; written by the engine's thread only."""

    def __init__(self) -> None:
        self.totals = Totals()
        self.gaps = Gaps()
        self.gap_figures = GapFigures()
        self.registry = CollectorRegistry()
        self._energy: tuple[Gauge, Gauge] | None = None
        self.running = self._gauge("num_requests_running", "Requests with a seat")
        self.waiting = self._gauge("num_requests_waiting", "Requests in the queue")
        self.kv_cache_usage = self._gauge("kv_cache_usage_perc", "Share of KV blocks in use, 0-1")
        self.prefix_queries = self._counter("prefix_cache_queries", "Tokens looked up")
        self.prefix_hits = self._counter("prefix_cache_hits", "Tokens found")
        self.preemptions = self._counter("num_preemptions", "Requests preempted")
        self.prompt_tokens = self._counter("prompt_tokens", "Prompt tokens of started requests")
        self.generation_tokens = self._counter("generation_tokens", "Tokens generated")
        self.drafts = self._counter("spec_decode_num_drafts", "Drafts verified")
        self.draft_tokens = self._counter("spec_decode_num_draft_tokens", "Draft tokens verified")
        self.accepted_tokens = self._counter(
            "spec_decode_num_accepted_tokens", "Draft tokens accepted"
        )
        self.accepted_per_position = Counter(
            f"{PREFIX}spec_decode_num_accepted_tokens_per_pos",
            "Draft tokens accepted, by position",
            ["position"],
            registry=self.registry,
        )
        self.finished = Counter(
            f"{PREFIX}request_success",
            "Finished requests",
            ["finished_reason"],
            registry=self.registry,
        )
        self.expert_tokens = Counter(
            f"{PREFIX}expert_tokens",
            "Tokens that each sparse expert took",
            ["layer", "expert"],
            registry=self.registry,
        )
        self.expert_imbalance = Gauge(
            f"{PREFIX}expert_load_imbalance",
            "Tokens of a sparse layer's busiest expert over the mean of all, since start",
            ["layer"],
            registry=self.registry,
        )
        self._expert_totals: dict[int, list[int]] = {}
        self.audits = Counter(
            f"{PREFIX}audits",
            "Answers with drafts computed again without, by what came of it",
            ["verdict"],
            registry=self.registry,
        )
        for verdict in Verdict:
            self.audits.labels(verdict=verdict.value)
        self.audited_tokens = self._counter("audited_tokens", "Tokens computed again by audits")
        self.ttft = self._histogram("time_to_first_token_seconds", "Arrival to first token")
        self.tpot = self._histogram(
            "time_per_output_token_seconds", "Per output token", TOKEN_SECONDS
        )
        self.e2e = self._histogram("e2e_request_latency_seconds", "Arrival to end")
        self.queue = self._histogram("request_queue_time_seconds", "Arrival to first step")
        self.prefill = self._histogram("request_prefill_time_seconds", "First step to first token")
        self.decode = self._histogram("request_decode_time_seconds", "First token to end")
        self.request_prompt = self._histogram("request_prompt_tokens", "Prompt length", TOKENS)
        self.request_output = self._histogram("request_generation_tokens", "Output length", TOKENS)
        self.iteration_tokens = self._histogram("iteration_tokens_total", "Tokens a step", TOKENS)

    def observe_step(
        self, *, seconds: float, input_tokens: int, replayed_tokens: int, total_tokens: int
    ) -> None:
        """Split a step's time by its tokens; rejected drafts are part of the cost of output."""
        input_seconds = seconds * input_tokens / total_tokens
        audit_seconds = seconds * replayed_tokens / total_tokens
        self.totals.input_seconds += input_seconds
        self.totals.audit_seconds += audit_seconds
        self.totals.output_seconds += seconds - input_seconds - audit_seconds
        self.iteration_tokens.observe(total_tokens)

    def observe_load(self, load: Load) -> None:
        self.running.set(load.running)
        self.waiting.set(load.waiting)
        self.kv_cache_usage.set(load.kv_cache_usage)

    def observe_cache(self, stats: CacheStats) -> None:
        """What the scheduler counted since it was last asked."""
        self.preemptions.inc(stats.preemptions)
        self.prefix_queries.inc(stats.queried_tokens)
        self.prefix_hits.inc(stats.hit_tokens)

    def observe_audit(self, verdict: Verdict) -> None:
        self.audits.labels(verdict=verdict.value).inc()
        name = f"audits_{verdict.value}"
        setattr(self.totals, name, getattr(self.totals, name) + 1)

    def observe_energy(self, joules: float | None) -> None:
        """Joules since the engine started; the series exist only where there is such a figure."""
        if joules is None:
            return
        if self._energy is None:
            self._energy = (
                self._gauge("energy_joules", "Of the whole package or board"),
                self._gauge("joules_per_million_tokens", "By tokens computed, input and output"),
            )
        tokens = self.totals.input_tokens_uncached + self.totals.output_tokens
        self.totals.joules = joules
        self._energy[0].set(joules)
        self._energy[1].set(joules / tokens * 1e6 if tokens else 0.0)

    def observe_draft(self, *, drafted: int, accepted: int) -> None:
        self.totals.drafted += drafted
        self.totals.accepted += accepted
        if drafted:
            self.drafts.inc()
            self.draft_tokens.inc(drafted)
            self.accepted_tokens.inc(accepted)
        for position in range(accepted):
            self.accepted_per_position.labels(position=str(position)).inc()

    def observe_experts(self, use: ExpertUse) -> None:
        """Add tokens by expert, of each sparse layer, and the time that finding them took."""
        self.totals.dispatch_seconds += use.dispatch_seconds
        for layer, counts in use.tokens.items():
            totals = self._expert_totals.setdefault(layer, [0] * len(counts))
            for expert, count in enumerate(counts):
                totals[expert] += count
                self.expert_tokens.labels(layer=str(layer), expert=str(expert)).inc(count)
            mean = sum(totals) / len(totals)
            self.expert_imbalance.labels(layer=str(layer)).set(max(totals) / mean if mean else 0.0)

    def observe_prompt(self, *, tokens: int, cached: int) -> None:
        self.totals.input_tokens_uncached += tokens - cached
        self.totals.input_tokens_cached += cached
        self.prompt_tokens.inc(tokens)

    def observe_finished(self, usage: RequestUsage, reason: str) -> None:
        self.finished.labels(finished_reason=reason).inc()
        self.queue.observe(usage.queue_ms / 1e3)
        self.prefill.observe(usage.prefill_ms / 1e3)
        self.decode.observe(usage.decode_ms / 1e3)
        self.e2e.observe((usage.queue_ms + usage.prefill_ms + usage.decode_ms) / 1e3)
        self.request_prompt.observe(usage.prompt_tokens)
        self.request_output.observe(usage.completion_tokens)
        if usage.completion_tokens > 1:
            self.tpot.observe(usage.decode_ms / 1e3 / (usage.completion_tokens - 1))

    def render(self) -> bytes:
        return generate_latest(self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(PREFIX + name, text, registry=self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(PREFIX + name, text, registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: tuple[float, ...] | tuple[int, ...] = SECONDS
    ) -> Histogram:
        return Histogram(PREFIX + name, text, buckets=buckets, registry=self.registry)
