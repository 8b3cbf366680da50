"""Estimates that a later count trues up: given back once, one note a tenant, never charged more."""

from datetime import date, timedelta

import msgspec
import pytest
from django.db import IntegrityError, connection, transaction

from billing import basis, events, fault_isolation
from billing.corrections import rerating, true_ups
from billing.credit import balances as credit
from billing.holding.holds import SettledAttempt
from billing.models import (
    AdjustmentNote,
    Entry,
    ReRating,
    Tenant,
    TrueUp,
    UsageEvent,
)
from billing.money import nano_ceil
from billing.usage import CanonicalUsage
from tests.billing import desk as desks
from tests.billing.corrections.test_correcting import LATER, correction, post, preview
from tests.billing.open_books import Books, opened

NOON = desks.at(desks.NOON_MS)
COUNTED = CanonicalUsage(input_tokens=38, output_tokens=8)


def pico(input_tokens: int, output_tokens: int) -> int:
    return input_tokens * desks.INPUT_PICO + output_tokens * desks.OUTPUT_PICO


def guessed(
    books: Books, *, usage: tuple[int, int] = (100, 10), source: str = basis.BYTES
) -> UsageEvent:
    """An attempt that was cut, and charged an estimate."""
    request_id = books.desk.placed(hold_nano=1_000_000)
    made = books.desk.event(request_id, usage=usage, outcome="client_cancelled")
    made = msgspec.structs.replace(made, usage_source=source)
    charge = SettledAttempt(events.encode(made), nano_ceil(made.tenant_cost_pico))
    books.desk.settle_events(request_id, [charge])
    books.drain()
    return UsageEvent.objects.get(request_id=request_id)


def waiting(*offers: int) -> list[int]:
    since = NOON - timedelta(days=365)
    found = true_ups.estimated(offers=offers or (1,), since=since)
    return sorted(found.values_list("pk", flat=True))


def test_what_an_estimate_took_too_much_goes_back_once(books: Books) -> None:
    # given
    event, left = guessed(books), books.balance().left_pico
    facts = UsageEvent.objects.filter(pk=event.pk).values().get()
    assert waiting() == [event.pk]
    # when
    noted = [true_ups.note_count(event, COUNTED, now=NOON) for _ in range(2)]
    posted = [true_ups.post_due(now=NOON) for _ in range(2)]
    # then
    assert (noted, posted, waiting()) == ([True, True], [1, 0], [])
    row, note = TrueUp.objects.get(), AdjustmentNote.objects.get()
    back_pico = pico(100, 10) - pico(38, 8)
    assert (row.charged_pico, row.due_pico, row.note) == (pico(100, 10), pico(38, 8), note)
    assert (int(note.grant.amount_pico), note.cause) == (back_pico, "correction")
    assert note.months == {f"{event.day:%Y-%m}": str(back_pico)}
    assert books.balance().left_pico == left + back_pico
    assert books.account("revenue") == -pico(38, 8)
    assert UsageEvent.objects.filter(pk=event.pk).values().get() == facts
    assert books.check() == {}


def test_who_left_much_uncounted_keeps_nobody_elses_counts_waiting(books: Books) -> None:
    # given: one estimate of a neighbour, and then many of ours
    other = Tenant.objects.create(slug="other", name="Other")
    credit.grant(tenant=other, amount_pico=10**12, reason="test", created_by="test")
    theirs = guessed(opened(books.desk.client, other, books.price))
    ours = [guessed(books) for _ in range(3)]
    # when: a run takes some from the front
    found = true_ups.estimated(offers=(1,), since=NOON - timedelta(days=365))
    # then
    assert {event.pk for event in found[:2]} == {theirs.pk, ours[-1].pk}


def test_a_tenant_gets_one_note_a_run(books: Books) -> None:
    # given
    for output_tokens in (10, 20, 30):
        true_ups.note_count(guessed(books, usage=(100, output_tokens)), COUNTED, now=NOON)
    # when
    posted = true_ups.post_due(now=NOON)
    # then
    assert posted == 3
    back_pico = pico(300, 60) - 3 * pico(38, 8)
    assert int(AdjustmentNote.objects.get().grant.amount_pico) == back_pico
    assert TrueUp.objects.filter(note=None).count() == 0


@pytest.mark.parametrize(
    ("counted", "due", "told"),
    [
        ((138, 10), (100, 10), (138, 10)),  # the input is more
        ((100, 40), (100, 10), (100, 10)),  # the engine sent more than was shown
        ((38, 40), (38, 10), (38, 10)),
        ((100, 10), (100, 10), (100, 10)),
    ],
)
def test_nobody_is_charged_more_than_was_told(
    books: Books, counted: tuple[int, int], due: tuple[int, int], told: tuple[int, int]
) -> None:
    # given
    event = guessed(books)
    # when
    usage = CanonicalUsage(input_tokens=counted[0], output_tokens=counted[1])
    true_ups.note_count(event, usage, now=NOON)
    true_ups.post_due(now=NOON)
    # then
    row = TrueUp.objects.get()
    assert row.due_pico == pico(*due)
    assert (row.input_tokens, row.output_tokens) == told
    back_pico = pico(100, 10) - pico(*due)
    assert books.account("revenue") == -pico(100, 10) + back_pico
    assert AdjustmentNote.objects.count() == (1 if back_pico else 0)
    assert waiting() == []


@pytest.mark.parametrize("source", [basis.PROVIDER, basis.ENGINE])
def test_what_was_counted_is_not_asked_for(books: Books, source: str) -> None:
    guessed(books, source=source)
    assert waiting() == []


def test_estimates_of_other_sellers_wait_for_no_engine(books: Books) -> None:
    event = guessed(books)
    assert (waiting(1), waiting(2)) == ([event.pk], [])


def test_a_count_of_nothing_is_no_count(books: Books) -> None:
    event = guessed(books)
    nothing = CanonicalUsage(input_tokens=0, output_tokens=0)
    assert not true_ups.note_count(event, nothing, now=NOON)
    assert (waiting(), TrueUp.objects.count()) == ([event.pk], 0)


def test_a_kill_between_note_and_mark_leaves_neither(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    true_ups.note_count(guessed(books), COUNTED, now=NOON)
    before = (Entry.objects.count(), books.balance())

    class Killed(BaseException):
        pass

    def killed(**facts: object) -> None:
        credit_note(**facts)
        raise Killed

    credit_note = true_ups.adjustments.post
    # when
    monkeypatch.setattr(true_ups.adjustments, "post", killed)
    with pytest.raises(Killed):
        true_ups.post_due(now=NOON)
    monkeypatch.undo()
    # then
    assert (Entry.objects.count(), books.balance()) == before
    assert AdjustmentNote.objects.count() == 0
    assert (true_ups.post_due(now=NOON), AdjustmentNote.objects.count()) == (1, 1)


def test_one_tenant_s_failure_keeps_nobody_waiting(books: Books) -> None:
    # given: the first cannot be granted anything
    other = Tenant.objects.create(slug="other", name="Other")
    credit.grant(tenant=other, amount_pico=10**12, reason="test", created_by="test")
    second = opened(books.desk.client, other, books.price)
    for each in (books, second):
        true_ups.note_count(guessed(each), COUNTED, now=NOON)
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION refuse() RETURNS trigger AS $$ BEGIN RAISE EXCEPTION 'refused'; END $$"
            " LANGUAGE plpgsql; CREATE TRIGGER refuse BEFORE INSERT ON billing_adjustmentnote"
            f" FOR EACH ROW WHEN (NEW.tenant_id = {books.tenant.pk}) EXECUTE FUNCTION refuse()"
        )
    # when
    try:
        with pytest.raises(fault_isolation.SomeFailed, match=f"tenant {books.tenant.pk}"):
            true_ups.post_due(now=NOON)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("DROP FUNCTION refuse() CASCADE")
    # then
    assert AdjustmentNote.objects.get().tenant == other
    assert true_ups.post_due(now=NOON) == 1


def test_a_price_correction_leaves_out_what_was_trued_up(books: Books) -> None:
    # given
    event = guessed(books)
    true_ups.note_count(event, COUNTED, now=NOON)
    # when
    untouched = rerating.untouched(correction())
    # then
    assert preview() == []
    assert [(each.why, each.events) for each in untouched] == [("trued up to a later count", 1)]


def test_what_a_price_correction_made_up_is_not_trued_up_again(books: Books) -> None:
    # given
    event = guessed(books)
    post()
    before = (ReRating.objects.count(), Entry.objects.count())
    # when
    true_ups.note_count(event, COUNTED, now=LATER)
    true_ups.post_due(now=LATER)
    # then: and the next correction still has it
    assert (ReRating.objects.count(), Entry.objects.count()) == before
    assert [each.events for each in preview()] == [1]


@pytest.mark.parametrize("change", ["due_pico = 0", "note_id = NULL", "input_tokens = 1"])
def test_a_later_count_is_never_rewritten(books: Books, change: str) -> None:
    # given
    true_ups.note_count(guessed(books), COUNTED, now=NOON)
    true_ups.post_due(now=NOON)
    # when / then
    for sql in (f"UPDATE billing_trueup SET {change}", "DELETE FROM billing_trueup"):
        with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(sql)


def test_a_month_s_rebate_counts_what_is_left(books: Books) -> None:
    event = guessed(books)
    true_ups.note_count(event, COUNTED, now=NOON)
    true_ups.post_due(now=NOON)
    month = date(event.day.year, event.day.month, 1)
    given_pico = true_ups.adjustments.given_pico(books.tenant, month)
    assert given_pico == pico(100, 10) - pico(38, 8)
