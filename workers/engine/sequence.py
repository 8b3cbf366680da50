"""One request inside the engine: its tokens, how far they are computed, what it has been given."""

from dataclasses import dataclass, field
from enum import StrEnum

from workers.cache.kv import BlockTable, root_hash
from workers.engine.prompt_readings import PromptReading
from workers.engine.redraw_verdict import Verdict
from workers.model.sampler import SamplingParams, TokenLogprobs
from workers.speculation.protocol import NO_DRAFT, Draft
from workers.text.structured import Grammar


class FinishReason(StrEnum):
    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """What a caller asks of the engine. `leader` names a request with the same prompt (`n` > 1).

    Before `min_tokens` neither the end of the text nor `stop_token_ids` nor a stop string can come.
    With `max_tokens` 0 it ends when its prompt is computed. `prompt_logprobs` (likeliest tokens to
    list beside each) and `pooled` (an embedding) ask for a reading of the prompt. With `expected`
    it is a replay of an earlier answer: no drafts, no cache, and the end at the first other token.
    """

    request_id: str
    prompt: list[int]
    max_tokens: int
    sampling: SamplingParams = field(default_factory=SamplingParams)
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    min_tokens: int = 0
    prompt_logprobs: int | None = None
    pooled: bool = False
    grammar: Grammar | None = None
    ignore_eos: bool = False
    # Some vocabularies have special tokens that mark a function call: then they are text.
    keeps_special: bool = False
    salt: str = ""
    priority: int = 0
    leader_id: str | None = None
    expected: tuple[int, ...] | None = None
    auditable: bool = True

    @property
    def is_plainly_greedy(self) -> bool:
        """Whether the best token of each position is all that is asked of the model."""
        wants_more = self.grammar or self.min_tokens or self.sampling.logprobs is not None
        edits = self.sampling.edits_logits or self.expected is not None
        return self.sampling.is_greedy and not (wants_more or edits)


@dataclass(slots=True)
class Sequence:
    """Mutable state of a request. `tokens` = prompt + accepted output; drafts are kept apart."""

    request: GenerationRequest
    arrived_at: float
    table: BlockTable
    tokens: list[int]
    end_tokens: frozenset[int] = frozenset()
    grammar: Grammar | None = None
    reading: PromptReading | None = None
    verdict: Verdict | None = None
    leader: "Sequence | None" = None
    num_computed: int = 0
    proposed: Draft = NO_DRAFT
    draft: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    admitted_at: float | None = None
    admission_number: int = 0
    first_token_at: float | None = None
    last_token_at: float = 0.0
    cached_tokens: int | None = None
    preemptions: int = 0
    drafted: int = 0
    accepted: int = 0
    steps: int = 0
    logprobs: list[TokenLogprobs] = field(default_factory=list)

    @property
    def output(self) -> list[int]:
        return self.tokens[len(self.request.prompt) :]

    @property
    def output_count(self) -> int:
        return len(self.tokens) - len(self.request.prompt)

    @property
    def remaining(self) -> int:
        """Known tokens without a computed key and value."""
        return len(self.tokens) - self.num_computed

    @property
    def is_decoding(self) -> bool:
        return self.remaining == 1 and self.output_count > 0

    @property
    def is_replay(self) -> bool:
        return self.request.expected is not None

    @property
    def is_settled(self) -> bool:
        """Whether nothing may follow: the grammar is complete, or a replay has gone its own way."""
        if self.verdict not in (None, Verdict.SAME):
            return True
        return self.grammar is not None and self.grammar.is_complete

    @property
    def is_finished(self) -> bool:
        return self.finish_reason is not None

    @property
    def waits_for_leader(self) -> bool:
        """Copies of one prompt wait for the first, whose blocks they then share."""
        leader = self.leader
        return leader is not None and not leader.is_finished and leader.output_count == 0


def new_sequence(
    request: GenerationRequest, *, arrived_at: float, eos: tuple[int, ...] = ()
) -> Sequence:
    reading = None
    if request.pooled or request.prompt_logprobs is not None:
        reading = PromptReading(
            request.prompt, logprobs=request.prompt_logprobs, pooled=request.pooled
        )
    return Sequence(
        request=request,
        arrived_at=arrived_at,
        table=BlockTable(root=root_hash(request.salt)),
        tokens=list(request.prompt),
        end_tokens=frozenset((*eos, *request.stop_token_ids)),
        grammar=None if request.grammar is None else request.grammar.fresh(),
        reading=reading,
    )
