"""Who pays what for an attempt that ended one way or another: a table computed by hand."""

from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest

from billing import events
from billing.holding.holds import Settled
from billing.rating import Price
from billing.usage import CanonicalUsage
from gateway.clocks.stopwatch import Stopwatch
from gateway.dataplane.auth import Principal
from gateway.dataplane.exchange import Attempt, Exchange, Hold, Tally
from gateway.dataplane.inbound.request_id import new_request_id
from gateway.dataplane.settling import charges
from gateway.dataplane.settling.charges import Charge
from gateway.dataplane.surfaces.reading import openai
from gateway.routing.policies import PolicyView
from gateway.routing.router import Ranking
from providers.chat import Candidate, ChatRequest, Chunk, Held, OfferView
from providers.errors import ProviderError, StreamBroken, UpstreamFailed

NOON_MS = 1_773_144_000_000
HOLD_NANO = 5_000_000
# What this offer can cost at most; the hold is for a dearer one that may have to take over.
WORST_PICO = 200 * 4_000_000 + 100 * 8_000_000
PRICE = Price(
    version=7,
    sku="acme/fox",
    input_pico=2_000_000,
    cache_read_pico=500_000,
    cache_write_5m_pico=2_500_000,
    cache_write_1h_pico=4_000_000,
    output_pico=8_000_000,
    reasoning_pico=8_000_000,
)
OFFER = OfferView(
    id=3,
    sku="acme/fox",
    provider="acme",
    provider_name="Acme",
    model="fox",
    upstream_model="fox-1",
    wire="openai",
    base_url="https://acme.example/v1",
    headers={},
    context_length=8192,
    max_output_tokens=4096,
    prices=(PRICE,),
    in_house=False,
)
CANDIDATE = Candidate(
    offer=OFFER,
    prices=(PRICE,),
    expected_pico=1,
    worst_pico=WORST_PICO,
    score=0.0,
    why="",
    input_bound=200,
    output_bound=100,
    max_output_tokens=100,
    cost_prices=(PRICE,),
)
PRINCIPAL = Principal(
    key_id=5,
    public_id="p",
    name="key",
    tenant_id=71,
    tenant_slug="aurora",
    team_id=9,
    scopes=frozenset({"inference"}),
    models_allowed=frozenset(),
    expires_at_ms=None,
    max_output_tokens=4096,
    cache_salt="salt",
    spend=(),
    rates=(),
    policy=PolicyView(),
)
REQUEST = ChatRequest(
    surface="openai_chat",
    dialect="openai",
    read=openai.read,
    body=b"{}",
    fields={
        "messages": msgspec.Raw(b'[{"role": "user", "content": "A quick brown fox"}]'),
    },
    model="fox",
    stream=True,
    max_output_tokens=100,
    n=1,
    text_bytes=120,
    messages=1,
    tools=0,
    all_text=True,
)
# "A quick brown fox" is 17 bytes, five tokens; a message has four more, a request three.
PROMPT_TOKENS = 5 + 4 + 3
FULL = CanonicalUsage(input_tokens=50, cache_read_tokens=20, output_tokens=40)
FULL_PICO = 30 * 2_000_000 + 20 * 500_000 + 40 * 8_000_000


class Clock:
    def monotonic(self) -> float:
        return 12.0

    def now_ms(self) -> int:
        return NOON_MS


@dataclass
class Reader:
    """What a wire's reader had found out when the attempt ended."""

    usage: CanonicalUsage | None = None
    finished: bool = False
    finish_reason: str = ""
    upstream_id: str = "up-1"
    served_tier: str = ""
    usage_extra: dict[str, Any] = field(default_factory=dict)
    usage_problem: str = ""
    prompt_usage: CanonicalUsage | None = None
    choices_missing: int = 0


def attempt(
    outcome: str,
    *,
    usage: CanonicalUsage | None = None,
    finished: bool = False,
    shown: int = 0,
    read: int = 0,
    failure: ProviderError | None = None,
) -> Attempt:
    made = Attempt(1, CANDIDATE, Reader(usage, finished), Stopwatch(Clock()))  # type: ignore[arg-type]
    made.outcome, made.failure = outcome, failure
    made.shown, made.read = tally(shown), tally(read)
    return made


def tally(size: int) -> Tally:
    """Text of so many bytes, in one chunk."""
    made = Tally()
    if size:
        made.add(Chunk(b"", text="x" * size))
    return made


def exchange(*attempts: Attempt) -> Exchange:
    return Exchange(
        request_id=new_request_id(NOON_MS),
        started_ms=NOON_MS,
        deadline_ms=NOON_MS + 1000,
        principal=PRINCIPAL,
        request=REQUEST,
        client=None,  # type: ignore[arg-type]
        writer=None,  # type: ignore[arg-type]
        ranking=Ranking("fox", "cheapest", True, (CANDIDATE,), (), 30, 100),
        candidates=(CANDIDATE,),
        hold=Hold(HOLD_NANO, HOLD_NANO, 0, 200, 100, ()),
        attempts=list(attempts),
    )


CUT = StreamBroken("cut", after_first_byte=True)
FAILED = UpstreamFailed("500", status=500)


@pytest.mark.parametrize(
    ("ended", "tokens", "source", "tenant_pico"),
    [
        # A good answer: what the provider counted.
        (attempt("ok", usage=FULL, finished=True, shown=160, read=160), (50, 40), "provider",
         FULL_PICO),
        # The client left with everything shown: the same.
        (attempt("client_cancelled", usage=FULL, finished=True, shown=160, read=160), (50, 40),
         "provider", FULL_PICO),
        # It left, the upstream was drained: a quarter of the text is a quarter of the tokens.
        (attempt("client_cancelled", usage=FULL, finished=True, shown=40, read=160), (50, 10),
         "measured_ratio", 30 * 2_000_000 + 20 * 500_000 + 10 * 8_000_000),
        # It left, the upstream was aborted: nobody counted, four bytes a token and the template.
        (attempt("client_cancelled", shown=41, read=160), (PROMPT_TOKENS, 11), "bytes",
         PROMPT_TOKENS * 2_000_000 + 11 * 8_000_000),
        # It left before anything came: the prompt alone.
        (attempt("client_cancelled"), (PROMPT_TOKENS, 0), "bytes", PROMPT_TOKENS * 2_000_000),
        # It stopped reading: like leaving.
        (attempt("client_stalled", shown=18, read=160), (PROMPT_TOKENS, 5), "bytes",
         PROMPT_TOKENS * 2_000_000 + 5 * 8_000_000),
        # The upstream broke off: the prompt by estimate, the output as shown.
        (attempt("upstream_cut", shown=16, read=16, failure=CUT), (PROMPT_TOKENS, 4), "bytes",
         PROMPT_TOKENS * 2_000_000 + 4 * 8_000_000),
        # It had counted the prompt already.
        (attempt("upstream_cut", usage=CanonicalUsage(input_tokens=50, output_tokens=1), shown=16,
                 read=16, failure=CUT), (50, 4), "bytes", 50 * 2_000_000 + 4 * 8_000_000),
        # The deadline came in the middle.
        (attempt("deadline", shown=16, read=16, failure=CUT), (PROMPT_TOKENS, 4), "bytes",
         PROMPT_TOKENS * 2_000_000 + 4 * 8_000_000),
        # A good answer without any count: as if the client had left at its end.
        (attempt("ok", finished=True, shown=16, read=16), (PROMPT_TOKENS, 4), "bytes",
         PROMPT_TOKENS * 2_000_000 + 4 * 8_000_000),
        # Nothing counted beside text that was shown is no count.
        (attempt("ok", usage=CanonicalUsage(input_tokens=0, output_tokens=0), finished=True,
                 shown=16, read=16), (PROMPT_TOKENS, 4), "bytes",
         PROMPT_TOKENS * 2_000_000 + 4 * 8_000_000),
        # The input it did count stands.
        (attempt("ok", usage=CanonicalUsage(input_tokens=50, output_tokens=0), finished=True,
                 shown=16, read=16), (50, 4), "bytes", 50 * 2_000_000 + 4 * 8_000_000),
        # An answer of nothing has nothing to count.
        (attempt("ok", usage=CanonicalUsage(input_tokens=50, output_tokens=0), finished=True),
         (50, 0), "provider", 50 * 2_000_000),
    ],
)  # fmt: skip
def test_the_tenant_pays_for_what_was_delivered(
    ended: Attempt, tokens: tuple[int, int], source: str, tenant_pico: int
) -> None:
    # given / when
    charge = charges.charge_of(exchange(ended), ended)
    # then
    assert charge.usage is not None
    assert (charge.usage.input_tokens, charge.usage.output_tokens) == tokens
    assert (charge.source, charge.tenant_pico, charge.price) == (source, tenant_pico, 7)
    assert charge.charge_nano == -(-tenant_pico // 1000)
    assert charge.billable


@pytest.mark.parametrize(
    "ended",
    [
        attempt("upstream_error", failure=FAILED),
        attempt("upstream_error", read=16, failure=CUT),
        attempt("refused", failure=FAILED),
        attempt("deadline", failure=CUT),
    ],
)
def test_nobody_pays_where_the_upstream_delivered_nothing(ended: Attempt) -> None:
    # given / when
    charge = charges.charge_of(exchange(ended), ended)
    # then
    assert (charge.tenant_pico, charge.charge_nano, charge.billable) == (0, 0, False)


def test_a_failed_attempt_keeps_its_supplier_cost() -> None:
    # given: a stream that broke before anything was shown, counted all the same
    ended = attempt("upstream_error", usage=FULL, finished=True, read=16, failure=CUT)
    # when
    charge = charges.charge_of(exchange(ended), ended)
    # then
    assert (charge.tenant_pico, charge.supplier_pico) == (0, FULL_PICO)


def test_what_was_drained_is_our_cost_and_not_the_tenant_s() -> None:
    # given
    ended = attempt("client_cancelled", usage=FULL, finished=True, shown=40, read=160)
    # when
    charge = charges.charge_of(exchange(ended), ended)
    # then
    assert charge.supplier_pico == FULL_PICO > charge.tenant_pico


def test_an_estimate_never_passes_the_bounds_of_the_hold() -> None:
    # given: far more text than the output bound allows
    ended = attempt("client_cancelled", shown=100_000, read=100_000)
    # when
    charge = charges.charge_of(exchange(ended), ended)
    # then
    assert charge.usage is not None
    assert charge.usage.output_tokens == CANDIDATE.output_bound


def test_a_unit_without_a_price_keeps_the_most_it_can_cost_until_somebody_decides() -> None:
    # given
    usage = CanonicalUsage(input_tokens=5, output_tokens=5, input_audio_tokens=2)
    ended = attempt("ok", usage=usage, finished=True, shown=10, read=10)
    # when
    charge = charges.charge_of(exchange(ended), ended)
    # then: what this offer can cost, not what the dearest fallback could
    assert (charge.price, charge.tenant_pico, charge.charge_nano) == (None, 0, 1_600_000)
    assert (charge.billable, charge.problem) == (True, "audio input has no price at this sku")


def test_counts_that_are_none_are_held_and_the_receipt_says_how_much_and_why() -> None:
    # given
    ended = attempt("ok", finished=True, shown=16, read=16)
    ended.reader.usage_problem = "negative input_tokens"
    asked = exchange(ended)
    # when
    charge = charges.charge_of(asked, ended)
    receipt = charges.receipt_of(asked, ended, charge, None)
    event = events.decode(charges.event_of(asked, ended, charge, now_ms=NOON_MS))
    # then
    due_pico = PROMPT_TOKENS * 2_000_000 + 4 * 8_000_000
    assert (receipt.cost_pico, receipt.usage_source) == (0, "none")
    assert receipt.held == Held(WORST_PICO, "negative input_tokens", due_pico)
    assert (event.usage, event.price, event.problem) == (None, None, "negative input_tokens")
    assert event.detail.estimate == events.Estimated(
        input_tokens=PROMPT_TOKENS,
        output_tokens=4,
        basis="bytes",
        tenant_pico=due_pico,
    )


@pytest.mark.parametrize(
    ("claimed", "problem"),
    [
        (CanonicalUsage(input_tokens=50, output_tokens=10**10),
         "claims 10,000,000,000 output tokens; 100 were asked for"),
        (CanonicalUsage(input_tokens=50, output_tokens=101),
         "claims 101 output tokens; 100 were asked for"),
        (CanonicalUsage(input_tokens=201, output_tokens=1),
         "claims 201 input tokens; the prompt can be 200 at most"),
        (CanonicalUsage(input_tokens=50, output_tokens=10**30),
         f"claims {10**30:,} output tokens; 100 were asked for"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("outcome", ["ok", "client_cancelled"])
def test_a_claim_beyond_what_was_asked_costs_its_tenant_the_estimate_and_is_owed_to_nobody(
    claimed: CanonicalUsage, problem: str, outcome: str
) -> None:
    # given
    ended = attempt(outcome, usage=claimed, finished=True, shown=16, read=16)
    asked = exchange(ended)
    # when
    charge = charges.charge_of(asked, ended)
    receipt = charges.receipt_of(asked, ended, charge, None)
    # then
    assert charge.usage == CanonicalUsage(input_tokens=PROMPT_TOKENS, output_tokens=4)
    assert charge.tenant_pico == PROMPT_TOKENS * 2_000_000 + 4 * 8_000_000
    assert (charge.supplier_pico, charge.problem) == (0, problem)
    assert charge.claimed is not None
    assert charge.claimed.output_tokens == min(claimed.output_tokens, 2**63 - 1)
    assert events.decode(charges.event_of(asked, ended, charge, now_ms=1)).claimed is not None
    assert (receipt.cost_pico, receipt.held) == (charge.tenant_pico, None)


def test_a_failed_attempt_that_claims_too_much_is_owed_nothing_either() -> None:
    # given
    claimed = CanonicalUsage(input_tokens=50, output_tokens=10**10)
    ended = attempt("upstream_error", usage=claimed, read=16, failure=CUT)
    # when
    charge = charges.charge_of(exchange(ended), ended)
    # then
    assert (charge.tenant_pico, charge.supplier_pico, charge.billable) == (0, 0, False)
    assert charge.claimed == claimed


def test_what_a_server_had_counted_when_a_chunk_was_shown_is_charged() -> None:
    # given: a server that counts as it goes, and a client that leaves
    ended = attempt("client_cancelled")
    so_far = CanonicalUsage(input_tokens=38, cache_read_tokens=16, output_tokens=7)
    ended.show(Chunk(b"", text="x" * 90, usage=so_far))
    # when
    charge = charges.charge_of(exchange(ended), ended)
    # then
    assert (charge.usage, charge.source) == (so_far, "provider")
    assert charge.tenant_pico == 22 * 2_000_000 + 16 * 500_000 + 7 * 8_000_000


def test_a_count_that_is_behind_what_was_shown_is_none_of_the_output() -> None:
    # given: it counted once, at the first word
    ended = attempt("client_cancelled")
    ended.show(Chunk(b"", text="word", usage=CanonicalUsage(input_tokens=38, output_tokens=1)))
    ended.show(Chunk(b"", text="x" * 76))
    # when
    charge = charges.charge_of(exchange(ended), ended)
    # then
    assert charge.usage == CanonicalUsage(input_tokens=38, output_tokens=20)
    assert charge.source == "bytes"


def test_the_client_is_told_what_is_debited_and_never_more_than_the_hold() -> None:
    # given: Redis took less than it was asked to
    ended = attempt("ok", usage=FULL, finished=True, shown=10, read=10)
    asked = exchange(ended)
    charge = charges.charge_of(asked, ended)
    # when
    receipt = charges.receipt_of(asked, ended, charge, Settled(7, 383, True, 0))
    # then
    assert (charge.tenant_pico, receipt.cost_pico) == (FULL_PICO, 7_000)


def test_the_event_says_all_that_the_drain_needs() -> None:
    # given
    ended = attempt("ok", usage=FULL, finished=True, shown=160, read=160)
    asked = exchange(ended)
    charge = charges.charge_of(asked, ended)
    # when
    event = events.decode(charges.event_of(asked, ended, charge, now_ms=NOON_MS + 5))
    # then
    assert (event.tenant, event.key, event.team, event.attempt) == (71, 5, 9, 1)
    assert (event.sku, event.price, event.prices) == ("acme/fox", 7, (7,))
    assert (event.offer, event.supplier, event.model) == (3, "acme", "fox")
    assert (event.outcome, event.usage, event.tenant_cost_pico) == ("ok", FULL, FULL_PICO)
    assert (event.occurred_ms, event.settled_ms) == (NOON_MS, NOON_MS + 5)


def test_the_template_of_a_hold_is_an_unknown_attempt_that_costs_nothing() -> None:
    # given
    ended = attempt("")
    # when
    event = events.decode(
        charges.event_of(exchange(ended), ended, Charge(), now_ms=NOON_MS, template=True)
    )
    # then
    assert (event.outcome, event.billable, event.tenant_cost_pico) == ("unknown", False, 0)


def test_who_leaves_early_pays_the_prompt_as_the_provider_counted_it() -> None:
    # given: a provider that counts the prompt at the start and the output at the end
    ended = attempt("client_cancelled", shown=41, read=160)
    ended.reader.prompt_usage = CanonicalUsage(
        input_tokens=50, cache_read_tokens=20, output_tokens=0
    )
    # when
    charge = charges.charge_of(exchange(ended), ended)
    # then
    assert charge.tenant_pico == 30 * 2_000_000 + 20 * 500_000 + 11 * 8_000_000
    assert charge.source == "bytes"


@pytest.mark.parametrize(("text", "size"), [("fox", 3), ("狐狸", 6), ("🦊", 4)])
def test_delivered_text_is_counted_in_bytes(text: str, size: int) -> None:
    # given
    tally = Tally()
    # when: said, and thought
    tally.add(Chunk(b"", text=text))
    tally.add(Chunk(b"", reasoning=text))
    # then
    assert (tally.size, tally.chunks) == (2 * size, 2)


FAST = msgspec.structs.replace(PRICE, version=8, service_tier=2, output_pico=16_000_000)


def served(tier: str, *, asked: int, prices: tuple[Price, ...]) -> tuple[Charge, Any]:
    """The charge and the event of a good answer that says which tier served it."""
    ended = attempt("ok", usage=FULL, finished=True, shown=160, read=160)
    ended.candidate = msgspec.structs.replace(CANDIDATE, prices=prices, cost_prices=prices)
    ended.reader.served_tier = tier
    made = exchange(ended)
    made.request = replace(REQUEST, service_tier=asked)
    charge = charges.charge_of(made, ended)
    return charge, events.decode(charges.event_of(made, ended, charge, now_ms=NOON_MS))


@pytest.mark.parametrize(
    ("tier", "asked", "version", "billed_tier"),
    [
        ("", 0, 7, 0),  # it does not say: what was asked for
        ("default", 0, 7, 0),
        ("standard", 0, 7, 0),
        ("on_demand", 0, 7, 0),
        ("", 2, 8, 2),
        ("priority", 2, 8, 2),
        ("fast", 2, 8, 2),
        ("default", 2, 7, 0),  # no room for a priority request: billed as what served
    ],
)
def test_the_tier_that_served_is_the_one_that_is_billed(
    tier: str, asked: int, version: int, billed_tier: int
) -> None:
    # given
    prices = (PRICE,) if asked == 0 else (PRICE, FAST)
    # when
    charge, event = served(tier, asked=asked, prices=prices)
    # then
    assert (charge.price, event.service_tier) == (version, billed_tier)
    assert charge.tenant_pico == FULL_PICO + (40 * 8_000_000 if version == 8 else 0)
    assert event.detail.served_tier == tier


@pytest.mark.parametrize("tier", ["priority", "flex", "scale", "ultra\x00", "unreadable"])
def test_a_served_tier_without_a_pinned_price_keeps_the_hold_and_is_rated_by_nobody(
    tier: str,
) -> None:
    # when
    charge, event = served(tier, asked=0, prices=(PRICE,))
    # then
    assert (charge.price, charge.tenant_pico, charge.supplier_pico) == (None, 0, 0)
    assert (charge.charge_nano, charge.billable) == (1_600_000, True)
    assert (event.price, event.prices) == (None, (7,))
