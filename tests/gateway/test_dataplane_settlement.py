"""Who pays what for an attempt that ended one way or another: a table computed by hand."""

from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest

from billing import events
from billing.rating import Price
from billing.usage import CanonicalUsage
from gateway.dataplane import settlement
from gateway.dataplane.auth import Principal
from gateway.dataplane.exchange import Attempt, Exchange, Hold, Tally
from gateway.dataplane.limits import Limits
from gateway.dataplane.relay import Relay
from gateway.dataplane.request_id import new_request_id
from gateway.dataplane.settlement import Charge
from gateway.dataplane.stopwatch import Stopwatch
from gateway.routing.breaker import Breaker
from gateway.routing.policies import PolicyView
from gateway.routing.router import Ranking
from providers.chat import Candidate, ChatRequest, Chunk, OfferView
from providers.errors import ProviderError, StreamBroken, Timeout, UpstreamFailed

NOON_MS = 1_773_144_000_000
HOLD_NANO = 5_000_000
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
    worst_pico=1,
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
    body=b"{}",
    fields={},
    model="fox",
    stream=True,
    max_output_tokens=100,
    n=1,
    text_bytes=120,
    messages=1,
    tools=0,
    all_text=True,
)
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
    prompt_usage: CanonicalUsage | None = None


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
    made.shown = Tally(size=shown, chunks=1 if shown else 0)
    made.read = Tally(size=read, chunks=1 if read else 0)
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
         "estimated", 30 * 2_000_000 + 20 * 500_000 + 10 * 8_000_000),
        # It left, the upstream was aborted: the bound for the prompt, four bytes a token shown.
        (attempt("client_cancelled", shown=41, read=160), (200, 11), "estimated",
         200 * 2_000_000 + 11 * 8_000_000),
        # It left before anything came: the prompt alone.
        (attempt("client_cancelled"), (200, 0), "estimated", 200 * 2_000_000),
        # It stopped reading: like leaving.
        (attempt("client_stalled", shown=8, read=160), (200, 2), "estimated",
         200 * 2_000_000 + 2 * 8_000_000),
        # The upstream broke off: the prompt by estimate, the output as shown.
        (attempt("upstream_cut", shown=16, read=16, failure=CUT), (30, 4), "estimated",
         30 * 2_000_000 + 4 * 8_000_000),
        # It had counted the prompt already.
        (attempt("upstream_cut", usage=CanonicalUsage(input_tokens=50, output_tokens=1), shown=16,
                 read=16, failure=CUT), (50, 4), "estimated", 50 * 2_000_000 + 4 * 8_000_000),
        # The deadline came in the middle.
        (attempt("deadline", shown=16, read=16, failure=CUT), (30, 4), "estimated",
         30 * 2_000_000 + 4 * 8_000_000),
    ],
)  # fmt: skip
def test_the_tenant_pays_for_what_was_delivered(
    ended: Attempt, tokens: tuple[int, int], source: str, tenant_pico: int
) -> None:
    # given / when
    charge = settlement.charge_of(exchange(ended), ended)
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
    charge = settlement.charge_of(exchange(ended), ended)
    # then
    assert (charge.tenant_pico, charge.charge_nano, charge.billable) == (0, 0, False)


def test_a_failed_attempt_keeps_its_supplier_cost() -> None:
    # given: a stream that broke before anything was shown, counted all the same
    ended = attempt("upstream_error", usage=FULL, finished=True, read=16, failure=CUT)
    # when
    charge = settlement.charge_of(exchange(ended), ended)
    # then
    assert (charge.tenant_pico, charge.supplier_pico) == (0, FULL_PICO)


def test_what_was_drained_is_our_cost_and_not_the_tenant_s() -> None:
    # given
    ended = attempt("client_cancelled", usage=FULL, finished=True, shown=40, read=160)
    # when
    charge = settlement.charge_of(exchange(ended), ended)
    # then
    assert charge.supplier_pico == FULL_PICO > charge.tenant_pico


def test_an_estimate_never_passes_the_bounds_of_the_hold() -> None:
    # given: far more text than the output bound allows
    ended = attempt("client_cancelled", shown=100_000, read=100_000)
    # when
    charge = settlement.charge_of(exchange(ended), ended)
    # then
    assert charge.usage is not None
    assert charge.usage.output_tokens == CANDIDATE.output_bound


@pytest.mark.parametrize(
    "usage",
    [None, CanonicalUsage(input_tokens=5, output_tokens=5, input_audio_tokens=2)],
)
def test_usage_that_cannot_be_rated_keeps_the_hold_until_somebody_decides(
    usage: CanonicalUsage | None,
) -> None:
    # given: no counts at all, or a unit without a price
    ended = attempt("ok", usage=usage, finished=True, shown=10, read=10)
    # when
    charge = settlement.charge_of(exchange(ended), ended)
    # then
    assert (charge.price, charge.tenant_pico, charge.charge_nano) == (None, 0, HOLD_NANO)
    assert charge.billable


def test_the_client_is_told_what_is_debited_and_never_more_than_the_hold() -> None:
    # given: a provider that reports ten times what was allowed
    usage = CanonicalUsage(input_tokens=50, output_tokens=1_000)
    ended = attempt("ok", usage=usage, finished=True, shown=10, read=10)
    asked = exchange(ended)
    # when
    charge = settlement.charge_of(asked, ended)
    receipt = settlement.receipt_of(asked, ended, charge, None)
    # then
    assert charge.tenant_pico == 50 * 2_000_000 + 1_000 * 8_000_000
    assert receipt.cost_pico == HOLD_NANO * 1000


def test_the_event_says_all_that_the_drain_needs() -> None:
    # given
    ended = attempt("ok", usage=FULL, finished=True, shown=160, read=160)
    asked = exchange(ended)
    charge = settlement.charge_of(asked, ended)
    # when
    event = events.decode(settlement.event_of(asked, ended, charge, now_ms=NOON_MS + 5))
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
        settlement.event_of(exchange(ended), ended, Charge(), now_ms=NOON_MS, template=True)
    )
    # then
    assert (event.outcome, event.billable, event.tenant_cost_pico) == ("unknown", False, 0)


def test_a_cost_that_no_register_can_hold_is_for_a_person_to_decide() -> None:
    # given: a provider that reports a thousand billion tokens
    usage = CanonicalUsage(input_tokens=50, output_tokens=10**12)
    ended = attempt("ok", usage=usage, finished=True, shown=10, read=10)
    # when
    charge = settlement.charge_of(exchange(ended), ended)
    # then: what goes to Redis is the hold, which it can take
    assert (charge.price, charge.tenant_pico, charge.charge_nano) == (None, 0, HOLD_NANO)


def test_who_leaves_early_pays_the_prompt_as_the_provider_counted_it() -> None:
    # given: a provider that counts the prompt at the start and the output at the end
    ended = attempt("client_cancelled", shown=41, read=160)
    ended.reader.prompt_usage = CanonicalUsage(
        input_tokens=50, cache_read_tokens=20, output_tokens=0
    )
    # when
    charge = settlement.charge_of(exchange(ended), ended)
    # then
    assert charge.tenant_pico == 30 * 2_000_000 + 20 * 500_000 + 11 * 8_000_000
    assert charge.source == "estimated"


@pytest.mark.parametrize(("text", "size"), [("fox", 3), ("狐狸", 6), ("🦊", 4)])
def test_delivered_text_is_counted_in_bytes(text: str, size: int) -> None:
    # given
    tally = Tally()
    # when: said, and thought
    tally.add(Chunk(b"", text=text))
    tally.add(Chunk(b"", reasoning=text))
    # then
    assert (tally.size, tally.chunks) == (2 * size, 2)


@pytest.mark.parametrize(("read", "state"), [(160, "closed"), (0, "open")])
def test_a_slow_reader_s_deadline_does_not_close_an_offer_that_was_answering(
    read: int, state: str
) -> None:
    # given
    breaker = Breaker()
    relay = Relay(upstream=None, breaker=breaker, limits=Limits(), clock=Clock())  # type: ignore[arg-type]
    # when: three requests in a row use up all of their time
    for _ in range(3):
        ended = attempt("deadline", shown=read, read=read, failure=Timeout("deadline"))
        relay._report(exchange(ended), ended)
    # then
    assert breaker.state(OFFER.access, PRINCIPAL.tenant_id, NOON_MS) == state


FAST = msgspec.structs.replace(PRICE, version=8, service_tier=2, output_pico=16_000_000)


def served(tier: str, *, asked: int, prices: tuple[Price, ...]) -> tuple[Charge, Any]:
    """The charge and the event of a good answer that says which tier served it."""
    ended = attempt("ok", usage=FULL, finished=True, shown=160, read=160)
    ended.candidate = msgspec.structs.replace(CANDIDATE, prices=prices, cost_prices=prices)
    ended.reader.served_tier = tier
    made = exchange(ended)
    made.request = replace(REQUEST, service_tier=asked)
    charge = settlement.charge_of(made, ended)
    return charge, events.decode(settlement.event_of(made, ended, charge, now_ms=NOON_MS))


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
    assert (charge.charge_nano, charge.billable) == (HOLD_NANO, True)
    assert (event.price, event.prices) == (None, (7,))
