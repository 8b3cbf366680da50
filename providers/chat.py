"""The canonical chat request and what comes back: the words that surfaces, routing and wires share.

Pure: no Django, no I/O. A surface parses the client's bytes into a ChatRequest; a wire turns
it into vendor bytes and the vendor's answer into Chunks; the surface writes those for the
client. What a client speaks is its dialect, what a seller's API is its wire. A wire that takes the
bytes of a dialect as they are gets them so, and its answers pass in `raw`; any other gets the
conversation that the surface reads.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal, Protocol, TypedDict

import msgspec

from billing.prices.price_spans import PriceBook
from billing.rating import Price
from billing.usage import CanonicalUsage
from providers.conversation import Conversation, Nuance
from providers.errors import CannotSay, ProviderError
from providers.json_values import JsonObject
from providers.pictures import Picture

# What a client may speak, and what a seller's API may be.
Dialect = Literal["openai", "anthropic"]
WireName = Literal["openai", "anthropic"]
# The index of a chunk that belongs to no choice.
NO_CHOICE = -1
# The ability of a pool that may fetch what a prompt gives the address of: its operator answers for
# its network.
FETCHES = "fetches"


@dataclass(frozen=True, slots=True)
class RoutingFields:
    """What the caller asks of routing: OpenRouter's `provider` object, models, suffixes."""

    order: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    allow_fallbacks: bool = True
    sort: str = ""
    max_input_pico: int | None = None
    max_output_pico: int | None = None
    models: tuple[str, ...] = ()
    require_parameters: bool = False  # an offer that would leave anything out is none


@dataclass(slots=True)
class ChatRequest:
    """One chat call as received. `body` is never rewritten in place; wires build their own.

    `fields` are the top-level fields of `body`, undecoded. `text_bytes` counts the JSON bytes
    of everything that can reach the prompt (messages, tools, schemas) and so bounds the text
    from above; `all_text` is False where the prompt holds anything else: `pictures`, sounds of at
    most `sound_tokens`, or what `unbounded` names, which the model's context alone bounds.
    `max_output_tokens` is the caller's, None where it named none. `needs` names what an offer must
    be able to do.
    `max_cost_pico` and `session_max_pico` are what the caller will pay for this request, and for
    its session, at most.
    `cache_salt` and `priority` are set by the pipeline once the tenant is known. `read` is how
    the surface reads the conversation out of the fields.
    """

    surface: str
    dialect: Dialect
    read: Callable[[Mapping[str, msgspec.Raw]], Conversation]
    body: bytes
    fields: Mapping[str, msgspec.Raw]
    model: str
    stream: bool
    max_output_tokens: int | None
    n: int
    text_bytes: int
    messages: int
    tools: int
    all_text: bool
    needs: frozenset[str] = frozenset()  # capabilities: "tools", "vision", "json_schema", …
    service_tier: int = 0
    session_id: str = ""
    max_cost_pico: int | None = None
    session_max_pico: int | None = None
    tag: str = ""
    explain: bool = False
    routing: RoutingFields = field(default_factory=RoutingFields)
    passed_headers: Mapping[str, str] = field(default_factory=dict)  # same dialect only
    cache_salt: str = ""
    priority: int = 0
    call_id: str = ""  # of the attempt, by which our own workers can be asked for it
    pictures: tuple[Picture, ...] = ()
    sound_tokens: int = 0
    unbounded: str = ""
    preamble_tokens: int = 0  # what a vendor itself says of tools that it describes
    include_usage: bool = True  # False: the caller wants no usage in its stream
    thinking_tokens: int = 0  # the budget that the caller gave, which its limit must exceed
    kept: Conversation | CannotSay | None = field(default=None, repr=False)
    # By the kind of seller, as `wires.registry` works it out: many offers are alike.
    left_out: dict[Enum, list[str]] | None = field(default=None, repr=False)

    @property
    def conversation(self) -> Conversation:
        """Read when a seller's wire first needs it, and kept for the next. CannotSay where the
        surface's look let something pass that is no request."""
        if self.kept is None:
            self.kept = self._read()
        if isinstance(self.kept, CannotSay):
            raise self.kept.with_traceback(None)
        return self.kept

    def _read(self) -> Conversation | CannotSay:
        try:
            return self.read(self.fields)
        except CannotSay as wrong:
            return wrong
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as wrong:
            return CannotSay(f"the request cannot be put into this provider's terms: {wrong}")


@dataclass(frozen=True, slots=True)
class OfferView:
    """An offer as the snapshot froze it. `prices` are the list prices in force at load; `book`
    has those of every price list and moment, where they differ from these."""

    id: int
    sku: str
    provider: str
    provider_name: str
    model: str
    upstream_model: str
    wire: WireName
    base_url: str
    headers: Mapping[str, str]  # authorisation included: never logged
    context_length: int  # 0: not known
    max_output_tokens: int  # 0: not known
    prices: tuple[Price, ...]
    in_house: bool
    demoted: bool = False
    capabilities: frozenset[str] = frozenset()
    quantization: str = ""
    cancel_stops_billing: bool = True
    pool: bool = False  # a server of the house that others wrote
    salted: bool = False  # takes a `cache_salt`: in-house workers and vLLM
    not_routable: str = ""  # why, in words; empty where it can be called
    returns_ms: int = 0  # where that may pass by itself: when it is looked at again
    book: PriceBook | None = None
    generation: str = ""  # another one where address, credential or limits are others

    @property
    def access(self) -> tuple[int, str]:
        """The offer as it is reached now: what failed before it was changed says nothing of it."""
        return self.id, self.generation

    def prices_at(self, lists: Sequence[int], now_ms: int) -> tuple[Price, ...]:
        """What whoever is on these price lists pays then; see PriceBook.at."""
        return self.prices if self.book is None else self.book.at(lists, now_ms)


class Candidate(msgspec.Struct, frozen=True):
    """An eligible offer with the versions pinned for it and its expected and greatest cost.

    The bounds are those that `worst_pico` rests on: `output_bound` is for all choices
    together, `max_output_tokens` the limit for one, to be sent upstream. `cost_prices` are what
    the supplier charges us for the same tiers. `limited_by` names what lowered the caller's limit
    or, where it named none, the model's; `cut_by` the ceiling that lowered it further.
    """

    offer: OfferView
    prices: tuple[Price, ...]
    expected_pico: int
    worst_pico: int
    score: float
    why: str
    input_bound: int = 0
    output_bound: int = 0
    max_output_tokens: int = 0
    cost_prices: tuple[Price, ...] = ()
    cut_by: str = ""
    limited_by: str = ""

    @property
    def tokens_bound(self) -> int:
        """The most tokens, in and out, that it can take."""
        return self.input_bound + self.output_bound


@dataclass(frozen=True, slots=True)
class UpstreamCall:
    """Bytes to send. `url` is absolute; the egress client checks it before it connects."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    method: Literal["GET", "POST"] = "POST"


class Called(TypedDict, total=False):
    name: str
    arguments: str


class CallDelta(TypedDict, total=False):
    """A piece of a tool call in the OpenAI shape. Its server may have said more in it."""

    index: int
    id: str
    type: str
    function: Called


class Chunk(msgspec.Struct):
    """One event of an answer. `raw` is the whole event in the wire's dialect, framing included.

    `text` counts as delivered output; `tool_calls` are deltas in the OpenAI shape.
    `hidden` marks an event that the client is not shown as it came: usage, terminators. What
    it says reaches the client through the Receipt. `dialect` says whose clients read `raw`.
    """

    raw: bytes
    dialect: Dialect | Literal[""] = ""
    text: str = ""
    reasoning: str = ""
    tool_calls: list[CallDelta] | None = None
    index: int = 0
    finish_reason: str = ""
    stop_sequence: str = ""  # the caller's own, where the upstream says that it ended there
    usage: CanonicalUsage | None = None
    hidden: bool = False
    last: bool = False


class ResponseReader(Protocol):
    """Reads one upstream answer. Fed with bytes as they come; keeps only an incomplete tail.

    `finished` is True once every choice gave a finish reason: an answer that ends without is
    cut. After an orderly end it is True with fewer choices than were asked for as well, and
    `choices_missing` says how many never came or were left open. `failure` is set where the
    upstream reported an error inside a 200 answer or sent what cannot be read: nothing that
    follows counts. `usage` stays None where the counts were missing or did not add up;
    `usage_problem` then says what was wrong with them.
    `prompt_usage` holds what a vendor counted of the prompt before its answer, output 0.
    `served_tier` is the service tier that the vendor says it served, empty where it says none.
    """

    failure: ProviderError | None
    usage: CanonicalUsage | None
    prompt_usage: CanonicalUsage | None
    usage_problem: str
    usage_extra: JsonObject  # vendor fields beside the counts: speculation, engine_ms
    finish_reason: str
    upstream_id: str
    served_tier: str
    finished: bool

    @property
    def choices_missing(self) -> int: ...

    def feed(self, data: bytes) -> list[Chunk]: ...

    def end(self) -> list[Chunk]: ...


class Wire(Protocol):
    """How one vendor family is spoken to.

    Clients of `dialect` speak as it does: their bytes pass. What it cannot say of others it
    declares: `lacks` are needs, each a reason against the offer; `unsaid` is what is left out.
    `build` raises providers.errors.CannotSay where that shows only in the writing: another seller
    may be asked. `reader` takes the offer because providers of one wire count differently.
    """

    name: WireName
    dialect: Dialect | None

    def lacks(self, offer: OfferView) -> frozenset[str]: ...

    def unsaid(self, conversation: Conversation) -> set[Nuance]: ...

    def build(
        self, request: ChatRequest, offer: OfferView, *, max_output_tokens: int
    ) -> UpstreamCall: ...

    def reader(self, request: ChatRequest, offer: OfferView | None = None) -> ResponseReader: ...

    def models_url(self, base_url: str) -> str:
        """Where a seller lists its models: asked to see whether it lives and takes a credential."""


@dataclass(frozen=True, slots=True)
class Held:
    """A sum that is debited and not charged: the counts of its answer cannot be taken. When nobody
    decides in time the estimate is charged, and the rest given back."""

    amount_pico: int
    reason: str
    estimate_pico: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the client is told at the end: one usage block, whatever the attempts were."""

    request_id: str
    model: str
    provider: str
    sku: str
    usage: CanonicalUsage
    usage_source: str
    cost_pico: int
    usage_extra: JsonObject = field(default_factory=dict)
    explanation: Mapping[str, object] | None = None
    session_cost_pico: int | None = None  # the session's running total, this request included
    stopped_by: str = ""  # the ceiling that ended the answer
    choices_missing: int = 0  # of those that were asked for
    held: Held | None = None


class ResponseWriter(Protocol):
    """Writes one answer in the client's dialect.

    Streamed: `chunk` for each, then `end` (finish, usage with cost, terminator), or `error`.
    Whole: `whole` with everything that was read.
    """

    content_type: bytes
    model: str  # the name that the answer bears, where it is written here

    def chunk(self, chunk: Chunk) -> bytes: ...

    def end(self, receipt: Receipt) -> bytes: ...

    def error(self, *, status: int, code: str, message: str, receipt: Receipt | None) -> bytes: ...

    def whole(self, chunks: list[Chunk], receipt: Receipt) -> bytes: ...
