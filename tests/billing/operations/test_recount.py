"""Recounts: an estimate with its basis, a suspicion with its reason, and never a charge."""

from datetime import timedelta

import pytest

from billing import events
from billing.events import AttemptDetail
from billing.holding.holds import SettledAttempt
from billing.models import UsageEvent
from billing.operations import recount
from billing.operations.recount import MIDDLE, OWN, ROUGH, Drift
from tests.billing import desk as desks
from tests.billing.open_books import Books

NOON = desks.at(desks.NOON_MS)


def served(
    books: Books, supplier: str, *, tokens: int, size: int, times: int = 20, **more: object
) -> None:
    """Answers of so many reported tokens and delivered bytes."""
    for _ in range(times):
        request_id = books.desk.placed(hold_nano=10_000_000)
        made = books.desk.event(request_id, usage=(100, tokens), **more)  # type: ignore[arg-type]
        made.supplier, made.detail = supplier, AttemptDetail(output_bytes=size)
        cost = -(-made.tenant_cost_pico // 1000)
        books.desk.settle_events(request_id, [SettledAttempt(events.encode(made), cost)])


def found(books: Books, *trusted: str) -> dict[str, Drift]:
    books.drain()
    return {d.supplier: d for d in recount.drifts(trusted=trusted, now=NOON + timedelta(days=1))}


def test_our_own_engine_is_the_measure_where_it_sells_the_model(books: Books) -> None:
    # given: our tokenizer makes 20 tokens of 100 bytes; one reseller counts 22.
    served(books, "in-house", tokens=20, size=100)
    served(books, "padder", tokens=22, size=100)
    # when
    drifts = found(books, "in-house")
    # then
    padder = drifts["padder"]
    assert (padder.basis, padder.requests) == (OWN, 20)
    assert (padder.reported_tokens, padder.recounted_tokens) == (440, 400)
    assert (padder.drift_ppm, padder.is_suspect) == (100_000, True)
    assert not drifts["in-house"].is_suspect


def test_the_middle_of_three_suppliers_is_the_next_best_measure(books: Books) -> None:
    # given
    for supplier, tokens in (("one", 20), ("two", 21), ("three", 30)):
        served(books, supplier, tokens=tokens, size=84)
    # when
    drifts = found(books)
    # then
    assert {d.basis for d in drifts.values()} == {MIDDLE}
    assert [name for name, d in drifts.items() if d.is_suspect] == ["three"]


def test_four_bytes_a_token_suspect_nobody(books: Books) -> None:
    # given
    served(books, "alone", tokens=100, size=4)
    # when
    drift = found(books)["alone"]
    # then
    assert (drift.basis, drift.recounted_tokens) == (ROUGH, 20)
    assert not drift.is_suspect


def test_few_requests_and_failed_answers_suspect_nobody(books: Books) -> None:
    # given
    served(books, "in-house", tokens=20, size=100)
    served(books, "seldom", tokens=40, size=100, times=19)
    served(books, "broken", tokens=40, size=100, outcome="upstream_cut")
    # when
    drifts = found(books, "in-house")
    # then
    assert not drifts["seldom"].is_suspect
    assert "broken" not in drifts


def test_a_busy_supplier_leaves_the_newest_of_others_to_be_read(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setattr(recount, "EVENTS_MAX", 10)
    monkeypatch.setattr(recount, "REQUESTS_LEAST", 5)
    served(books, "quiet", tokens=20, size=100, times=5)
    served(books, "busy", tokens=20, size=100, times=12)
    # when
    drifts = found(books)
    # then
    assert {name: d.requests for name, d in drifts.items()} == {"quiet": 5, "busy": 5}


def test_many_suppliers_leave_enough_of_each_to_be_judged_by(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setattr(recount, "EVENTS_MAX", 10)
    monkeypatch.setattr(recount, "REQUESTS_LEAST", 4)
    for number in range(5):
        served(books, f"seller-{number}", tokens=20, size=100, times=5)
    # then
    assert {drift.requests for drift in found(books).values()} == {4}


@pytest.mark.parametrize(
    ("detail", "told"),
    [
        (
            b'"estimate":{"input_tokens":120,"output_tokens":30,"basis":"bytes","tenant_pico":71}',
            (120, 30, 71),
        ),
        # As events of release 0.1 say it.
        (b'"recount":[120,30]', (120, 30, 120 * 2_000_000 + 30 * 8_000_000)),
        (b'"tag":"a"', None),
    ],
)
def test_an_event_without_usage_comes_with_a_figure_to_go_by(
    books: Books, detail: bytes, told: tuple[int, int, int] | None
) -> None:
    # given
    request_id = books.desk.placed(hold_nano=1_000_000)
    made = books.desk.event(request_id, usage=None, cost_pico=0)
    made.detail = AttemptDetail()
    body = events.encode(made).replace(b'"detail":{', b'"detail":{' + detail)
    books.desk.settle_events(request_id, [SettledAttempt(body, 1_000_000)])
    books.drain()
    event = UsageEvent.objects.get()
    # when
    suggestion = recount.suggestion(event)
    # then
    assert (event.state, event.tenant_cost_pico) == ("quarantined", 0)
    shown = suggestion and (
        suggestion.input_tokens,
        suggestion.output_tokens,
        suggestion.cost_pico,
    )
    assert shown == told
