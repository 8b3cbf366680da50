"""The drain: from the stream into events and the ledger, exactly once."""

from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import Any

import pytest
import redis
from django.db import DataError

from billing import registers
from billing.drain import booking, metering
from billing.drain.metering import Drained
from billing.holding import holds, usage_stream
from billing.holding.holds import SettledAttempt
from billing.holding.usage_stream import StreamEntry
from billing.models import Account, InvariantCheck, Transfer, UsageEvent
from billing.prices import versions as prices
from tests.billing import desk as desks
from tests.billing.open_books import Books

Kind = Account.Kind
COST_PICO = 100 * desks.INPUT_PICO + 10 * desks.OUTPUT_PICO  # 280,000,000: $0.00028


def test_a_served_request_becomes_an_event_and_a_balanced_transfer(books: Books) -> None:
    # given
    books.served(supplier_pico=200_000_000)
    # when
    drained = books.drain()
    # then
    assert drained == Drained(read=1, posted=1)
    (event,) = books.events()
    assert (event.state, event.tenant_cost_pico, event.rated_pico) == (
        "posted",
        COST_PICO,
        COST_PICO,
    )
    assert (event.input_tokens, event.output_tokens) == (100, 10)
    assert event.day == date(2026, 3, 10)
    assert event.settled_at == datetime(2026, 3, 10, 12, tzinfo=UTC)
    assert event.transfer is not None
    assert event.transfer.code == Transfer.Code.USAGE
    assert books.account(Kind.TENANT_CREDIT, tenant=True) == COST_PICO - 10**12
    assert books.account(Kind.REVENUE) == -COST_PICO
    assert books.account(Kind.COST_OF_SALES, supplier="acme") == 200_000_000
    assert books.account(Kind.PROVIDER_PAYABLE, supplier="acme") == -200_000_000
    assert books.check() == {}


def served_odd(books: Books) -> None:
    """7 tokens at 333 pico-dollars are 2,331, which Redis can only debit as 3 nano-dollars."""
    odd = prices.publish(
        sku_code="acme/odd-1",
        input_pico=0,
        cache_read_pico=0,
        cache_write_5m_pico=0,
        cache_write_1h_pico=0,
        output_pico=333,
        reasoning_pico=333,
        valid_from=datetime(2026, 3, 1, tzinfo=UTC),
        source="test",
        recorded_by="test",
    )
    books.desk.sku, books.desk.price = "acme/odd-1", odd.pk
    for _ in range(3):
        books.served(usage=(0, 7), cost_pico=2_331)


def test_the_registers_become_exact_to_the_pico_dollar(books: Books) -> None:
    # given
    served_odd(books)
    before = books.balance().spent_pico
    # when
    books.drain()
    # then
    assert (before, books.balance().spent_pico) == (9_000, 6_993)
    assert books.check() == {}


def test_three_acknowledgements_correct_once(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    served_odd(books)
    once = metering.acknowledge
    told: list[int] = []

    def thrice(*args: Any) -> None:
        told.extend(once(*args) for _ in range(3))

    monkeypatch.setattr(metering, "acknowledge", thrice)
    # when
    books.drain()
    # then
    assert told == [3, 0, 0]
    assert books.balance().spent_pico == 6_993
    assert books.check() == {}


def test_many_requests_of_a_batch_are_one_transfer(books: Books) -> None:
    # given
    for _ in range(5):
        books.served()
    # when
    drained = books.drain()
    # then
    assert drained == Drained(read=5, posted=5)
    assert Transfer.objects.filter(code=Transfer.Code.USAGE).count() == 1
    assert books.account(Kind.REVENUE) == -5 * COST_PICO
    assert books.check() == {}


def test_a_failed_attempt_costs_the_tenant_nothing_and_the_house_its_bill(books: Books) -> None:
    # given
    request_id = books.desk.placed(hold_nano=1_000_000)
    failed = books.desk.event(
        request_id,
        usage=None,
        outcome="upstream_error",
        billable=False,
        supplier_pico=7_000,
    )
    good = books.desk.event(request_id, attempt=1)
    books.desk.settle_events(
        request_id,
        [
            SettledAttempt(desks.encode(failed), 0),
            SettledAttempt(desks.encode(good), COST_PICO // 1000),
        ],
    )
    # when
    books.drain()
    # then
    assert [e.tenant_cost_pico for e in books.events()] == [0, COST_PICO]
    assert books.account(Kind.PROVIDER_WASTE, supplier="acme") == 7_000
    assert books.account(Kind.REVENUE) == -COST_PICO
    assert books.check() == {}


def test_a_drain_killed_between_commit_and_acknowledgement_posts_once(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    books.served()
    with monkeypatch.context() as patch:
        patch.setattr(metering, "acknowledge", _die)
        with pytest.raises(KeyboardInterrupt):
            books.drain()
    # when
    drained = books.drain()
    # then
    assert drained == Drained(read=1, known=1)
    assert UsageEvent.objects.count() == 1
    assert books.account(Kind.REVENUE) == -COST_PICO
    assert books.balance().spent_pico == COST_PICO
    assert books.check() == {}


def _die(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_drain_killed_before_its_commit_posts_once(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    books.served()
    with monkeypatch.context() as patch:
        patch.setattr(booking.ledger, "post_all", _die)
        with pytest.raises(KeyboardInterrupt):
            books.drain()
    assert UsageEvent.objects.count() == 0
    # when
    drained = books.drain()
    # then
    assert drained == Drained(read=1, posted=1)
    assert books.check() == {}


def test_the_same_settle_from_another_entry_is_given_back(books: Books) -> None:
    # given: the marker is gone when a spooled settle is replayed
    request_id = books.served()
    books.drain()
    books.desk.client.delete(registers.hold_key(books.desk.tag, request_id))
    books.settle(request_id)
    assert books.balance().spent_pico == 2 * COST_PICO
    # when
    drained = books.drain()
    # then
    assert drained == Drained(read=1, known=1)
    assert books.balance().spent_pico == COST_PICO
    assert books.check() == {}


def test_a_known_settle_among_new_ones_keeps_none_of_them_out(books: Books) -> None:
    # given: one batch, of one that is posted already and some that are not
    request_id = books.served()
    books.drain()
    books.desk.client.delete(registers.hold_key(books.desk.tag, request_id))
    before, after = books.served(), books.settle(request_id) and books.served()
    # when
    drained = books.drain()
    # then: each once, the new ones in the batch's transfer
    assert drained == Drained(read=3, posted=2, known=1)
    stored = {str(event.request_id): event.transfer_id for event in books.events()}
    assert stored.keys() == {request_id, before, after}
    assert stored[before] == stored[after] != stored[request_id]
    assert books.account(Kind.REVENUE) == -3 * COST_PICO
    assert books.balance().spent_pico == 3 * COST_PICO
    assert books.check() == {}


def test_another_body_under_the_same_id_raises_the_alarm(books: Books) -> None:
    # given
    request_id = books.served()
    books.drain()
    books.desk.client.delete(registers.hold_key(books.desk.tag, request_id))
    books.settle(request_id, usage=(100, 11))
    # when
    books.drain()
    # then
    assert list(books.check()) == ["one event, one body"]
    assert books.balance().spent_pico == COST_PICO


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"cost_pico": COST_PICO + 1}, "rated 280000001, again 280000000"),
        ({"usage": None, "cost_pico": 0}, "no usage where a count is due"),
        ({"usage": (-5, 10), "cost_pico": 0}, "a figure is negative or beyond all bounds"),
        ({"usage": (2**63, 10), "cost_pico": 0}, "a figure is negative or beyond all bounds"),
    ],
)
def test_what_does_not_add_up_is_quarantined_and_stays_debited(
    books: Books, change: dict[str, object], reason: str
) -> None:
    # given
    request_id = books.desk.placed(hold_nano=1_000_000)
    body = desks.encode(books.desk.event(request_id, **change))  # type: ignore[arg-type]
    books.desk.settle_events(request_id, [SettledAttempt(body, 1_000_000)])
    # when
    drained = books.drain()
    # then
    assert drained == Drained(read=1, quarantined=1)
    (event,) = books.events()
    assert (event.state, event.quarantine_reason) == ("quarantined", reason)
    assert (event.tenant_cost_pico, event.transfer_id) == (0, None)
    assert books.account(Kind.REVENUE) == 0
    assert books.balance().spent_pico == 1_000_000_000
    assert books.check() == {}


def test_a_price_that_was_not_pinned_is_quarantined(books: Books) -> None:
    # given
    request_id = books.desk.placed(hold_nano=1_000_000)
    event = books.desk.event(request_id)
    event.prices = ()
    books.desk.settle_events(request_id, [SettledAttempt(desks.encode(event), COST_PICO // 1000)])
    # when
    books.drain()
    # then
    assert books.events()[0].quarantine_reason == "no price for tier 0 at 100 input tokens"


def test_what_a_provider_reports_above_the_hold_is_reviewed(books: Books) -> None:
    # given: the hold is 200,000 nano-dollars, the request costs 280,000
    request_id = books.desk.placed(hold_nano=200_000)
    # when
    books.settle(request_id)
    books.drain()
    # then
    (event,) = books.events()
    assert (event.tenant_cost_pico, event.overage_pico) == (200_000_000, 80_000_000)
    assert books.account(Kind.OVERAGE_REVIEW, tenant=True) == 80_000_000
    assert books.account(Kind.REVENUE) == -COST_PICO
    assert books.balance().spent_pico == 200_000_000
    assert books.check() == {}


def test_an_expired_hold_is_charged_to_its_checkpoint_and_the_rest_is_exposure(
    books: Books,
) -> None:
    # given
    request_id = books.desk.placed(hold_nano=1_000_000)
    books.desk.checkpoint(request_id, charge_nano=216_000, usage=(100, 2), cost_pico=216_000_000)
    books.desk.now_ms += holds.LEASE_MS
    books.desk.expire(request_id)
    # when
    books.drain()
    # then
    (event,) = books.events()
    assert (event.attempt, event.outcome, event.tenant_cost_pico) == (-1, "unknown", 216_000_000)
    assert books.account(Kind.SUPPLIER_EXPOSURE, supplier="acme") == 784_000_000
    assert books.account(Kind.PROVIDER_PAYABLE, supplier="acme") == -784_000_000
    assert books.check() == {}


def expired_then_settled(books: Books, *, drain_between: bool) -> None:
    request_id = books.desk.placed(hold_nano=1_000_000)
    books.desk.checkpoint(request_id, charge_nano=216_000, usage=(100, 2), cost_pico=216_000_000)
    books.desk.now_ms += holds.LEASE_MS
    books.desk.expire(request_id)
    if drain_between:
        books.drain()
    books.settle(request_id, supplier_pico=150_000_000)
    books.drain()


@pytest.mark.parametrize("drain_between", [True, False])
def test_a_late_settle_posts_the_difference_and_takes_the_exposure_back(
    books: Books, drain_between: bool
) -> None:
    # when
    expired_then_settled(books, drain_between=drain_between)
    # then
    assert [(e.attempt, e.tenant_cost_pico, e.rated_pico) for e in books.events()] == [
        (-1, 216_000_000, 216_000_000),
        (0, 64_000_000, COST_PICO),
    ]
    assert books.account(Kind.SUPPLIER_EXPOSURE, supplier="acme") == 0
    assert books.account(Kind.PROVIDER_PAYABLE, supplier="acme") == -150_000_000
    assert books.account(Kind.REVENUE) == -COST_PICO
    assert books.balance().spent_pico == COST_PICO
    assert books.check() == {}


def test_the_correction_of_an_exposure_names_its_origin(books: Books) -> None:
    # when
    expired_then_settled(books, drain_between=True)
    # then
    correction = Transfer.objects.get(code=Transfer.Code.CORRECTION)
    assert correction.corrects == books.events()[0].transfer


def test_a_late_settle_whose_marker_is_gone_is_still_charged_once(books: Books) -> None:
    # given
    request_id = books.desk.placed(hold_nano=1_000_000)
    books.desk.checkpoint(request_id, charge_nano=216_000, usage=(100, 2), cost_pico=216_000_000)
    books.desk.now_ms += holds.LEASE_MS
    books.desk.expire(request_id)
    books.drain()
    books.desk.client.delete(registers.hold_key(books.desk.tag, request_id))
    # when
    books.settle(request_id)
    books.drain()
    # then
    assert books.balance().spent_pico == COST_PICO
    assert books.check() == {}


def test_what_cannot_be_read_is_set_aside_and_the_rest_goes_on(books: Books) -> None:
    # given
    stream = registers.stream_key(books.desk.tag)
    books.desk.client.xadd(stream, {"e": "{", "c": "0", "h": "0", "o": "0", "k": "", "l": "0"})
    stranger = books.desk.event(desks.request_id_at(books.desk.now_ms))
    stranger.tenant += registers.SHARDS
    books.desk.client.xadd(
        stream,
        {"e": desks.encode(stranger), "c": "0", "h": "0", "o": "0", "k": "", "l": "0"},
    )
    books.served()
    # when
    drained = books.drain()
    # then
    assert drained == Drained(read=3, posted=1, unreadable=2)
    assert books.desk.client.xlen(registers.unreadable_key(books.desk.tag)) == 2
    assert list(books.check()) == ["every event readable"]


@pytest.mark.parametrize(
    "spelling", [str.upper, lambda text: f"{{{text}}}", lambda text: text[:-1]]
)
def test_one_request_has_one_spelling(books: Books, spelling: Callable[[str], str]) -> None:
    # given: PostgreSQL would read the first two as the same id, and count the third as nobody's
    request_id = desks.request_id_at(books.desk.now_ms)[:-1] + "a"
    event = books.desk.event(request_id)
    event.request_id = spelling(request_id)
    fields = {"e": desks.encode(event), "c": "0", "h": "0", "o": "0", "k": "", "l": "0"}
    books.desk.client.xadd(registers.stream_key(books.desk.tag), fields)
    # when
    drained = books.drain()
    # then
    assert drained == Drained(read=1, unreadable=1)
    assert UsageEvent.objects.count() == 0


def test_the_stream_is_trimmed_behind_the_drain_whoever_else_reads_it(books: Books) -> None:
    # given: a reader that stopped, as the boards' once was
    client, stream = books.desk.client, registers.stream_key(books.desk.tag)
    client.xgroup_create(stream, "measurements", id="0")
    books.served()
    client.xreadgroup("measurements", "m", {stream: ">"})
    # when
    books.drain()
    # then
    assert client.xlen(stream) == 0


def test_trimming_bears_an_acknowledgement_between_its_looks(books: Books) -> None:
    # given: an entry that was read, and is acknowledged after the first look
    client, stream = books.desk.client, registers.stream_key(books.desk.tag)
    books.served()
    ((_, ((entry_id, _),)),) = client.xreadgroup("ledger", usage_stream.CONSUMER, {stream: ">"})

    class Overtaken(redis.Redis):
        def xinfo_groups(self, name: Any) -> Any:
            found = super().xinfo_groups(name)
            client.xack(stream, "ledger", entry_id)
            return found

    with Overtaken(connection_pool=client.connection_pool) as overtaken:
        # when
        trimmed = usage_stream.trim(overtaken, books.shard)
    # then
    assert (trimmed, client.xlen(stream)) == (1, 0)


def test_nul_characters_do_not_stop_the_drain(books: Books) -> None:
    # given
    books.served(session="a\x00b")
    # when
    drained = books.drain()
    # then
    assert drained == Drained(read=1, posted=1)
    assert InvariantCheck.objects.filter(holds=False).count() == 0


def test_an_entry_that_postgres_refuses_stands_alone(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given: something no check of ours foresaw
    bad = books.served(session="bad")
    for _ in range(4):
        books.served()
    write = booking.usage_rows.write

    def refuse(entries: Sequence[StreamEntry], *args: Any, **named: Any) -> Any:
        if any(entry.event.request_id == bad for entry in entries):
            raise DataError("not storable")
        return write(entries, *args, **named)

    monkeypatch.setattr(booking.usage_rows, "write", refuse)
    # when
    drained = books.drain()
    # then
    assert drained == Drained(read=5, posted=4, unreadable=1)
    assert books.account(Kind.REVENUE) == -4 * COST_PICO
