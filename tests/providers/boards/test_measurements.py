"""From usage events to rollups: every attempt once, in each span, whoever commits first."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from django.db import connection as database
from django.db.models import Sum
from django.test.utils import CaptureQueriesContext

from billing.events import AttemptDetail
from billing.models import UsageEvent
from billing.usage import CanonicalUsage
from providers.boards import histograms, measurements
from providers.errors import (
    AccountDoubted,
    AuthFailed,
    BadRequest,
    ContentFiltered,
    ModelNotFound,
    ProviderError,
    RequestRefused,
    UpstreamFailed,
)
from providers.market import credentials
from providers.models import MeasurementRollup
from tests.providers.made_offers import NOW, attempt, make_offer, post, request_id_of

pytestmark = pytest.mark.django_db(transaction=True)
Span = MeasurementRollup.Span


def _rollup(span: str) -> MeasurementRollup:
    return MeasurementRollup.objects.get(span=span)


def test_an_attempt_counts_once_in_each_span() -> None:
    # given
    offer = make_offer()
    post(attempt(offer), attempt(offer, 1))

    # when
    read = measurements.record(now=NOW)

    # then
    assert read == 2
    for span, start in (
        (Span.MINUTE, datetime(2051, 11, 23, 12, 0, tzinfo=UTC)),
        (Span.HOUR, datetime(2051, 11, 23, 12, 0, tzinfo=UTC)),
        (Span.DAY, datetime(2051, 11, 23, tzinfo=UTC)),
    ):
        row = _rollup(span)
        assert (row.start, row.requests, row.succeeded) == (start, 2, 2)
        assert (row.input_tokens, row.cached_tokens, row.output_tokens) == (600, 400, 200)
        assert (row.cost_pico, row.minutes_seen, row.minutes_up) == (2_000, 1, 1)
        assert histograms.size(row.ttft_ms_histogram) == 2


def test_what_was_taken_up_is_not_taken_up_again() -> None:
    # given
    offer = make_offer()
    post(attempt(offer))
    measurements.record(now=NOW)
    post(attempt(offer, 1))

    # when
    read = [measurements.record(now=NOW) for _ in range(2)]

    # then
    assert read == [1, 0]
    assert _rollup(Span.MINUTE).requests == 2


def test_an_entry_that_claims_too_much_stops_none_of_the_others() -> None:
    # given
    offer = make_offer()
    absurd = CanonicalUsage(input_tokens=1, output_tokens=2**63 - 1)
    post(attempt(offer), attempt(offer, 1, usage=absurd), attempt(offer, 2))

    # when
    read = [measurements.record(now=NOW) for _ in range(2)]

    # then
    assert read == [3, 0]
    assert (_rollup(Span.DAY).requests, _rollup(Span.DAY).output_tokens) == (2, 200)


def test_what_is_quarantined_was_made_but_its_claim_counts_for_nothing() -> None:
    # given
    offer = make_offer()
    post(attempt(offer))
    post(attempt(offer, 1), state="quarantined", tenant_cost_pico=0)

    # when
    measurements.record(now=NOW)

    # then
    row = _rollup(Span.DAY)
    assert (row.requests, row.succeeded) == (2, 2)
    assert (row.input_tokens, row.output_tokens, row.cost_pico) == (300, 100, 1_000)


def test_an_event_that_is_being_written_is_waited_for_and_not_passed_over() -> None:
    # given: of two drains the one that began first commits last
    offer = make_offer()
    post(attempt(offer))
    named = database.get_connection_params()
    reached = {key: named[key] for key in ("host", "user", "dbname") if named.get(key)}
    with psycopg.connect(**reached) as slow:
        columns = [field.column for field in UsageEvent._meta.fields if field.column != "id"]
        another = "overlay(request_id::text PLACING 'ffffffff' FROM 29)::uuid"
        own = ", ".join(another if c == "request_id" else c for c in columns)
        copied = f"INSERT INTO billing_usageevent ({', '.join(columns)}) SELECT {own}"
        slow.execute(f"{copied} FROM billing_usageevent".encode())
        post(attempt(offer, 2, tenant=8))

        # when
        while_it_writes = measurements.record(now=NOW)

    # then
    assert while_it_writes == 0
    assert measurements.record(now=NOW) == 3
    assert _rollup(Span.DAY).requests == 3


def test_a_rollback_takes_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    # given
    post(attempt(make_offer()))

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("killed between write and commit")

    # when
    with monkeypatch.context() as patch:
        patch.setattr(measurements, "_bury_refused_credentials", fail)
        with pytest.raises(RuntimeError):
            measurements.record(now=NOW)

    # then
    assert not MeasurementRollup.objects.exists()
    assert measurements.record(now=NOW) == 1


def test_events_spread_over_months_cost_by_their_hours_and_leave_no_old_minutes() -> None:
    # given: three events an hour over 90 days
    offer = make_offer()
    at_ms = int(NOW.timestamp() * 1000)
    hours = range(90 * 24)
    post(
        *(
            attempt(offer, occurred_ms=at_ms - hour * 3_600_000 - third * 60_000)
            for hour in hours
            for third in range(3)
        )
    )

    # when
    read = 0
    with CaptureQueriesContext(database) as asked:
        while found := measurements.record(now=NOW):
            read += found

    # then
    assert read == 3 * len(hours)
    assert len(asked) < 30
    minutes = MeasurementRollup.objects.filter(span=Span.MINUTE)
    assert minutes.count() == 10
    for span in (Span.HOUR, Span.DAY):
        rows = MeasurementRollup.objects.filter(span=span)
        sums = rows.aggregate(r=Sum("requests"), s=Sum("minutes_seen"), u=Sum("minutes_up"))
        assert sums == {"r": read, "s": read, "u": read}


def test_outcomes_are_told_apart() -> None:
    # given
    offer = make_offer()
    outcomes = ("ok", "stopped", "client_cancelled", "upstream_cut", "refused", "unknown")
    post(*(attempt(offer, n, outcome=o) for n, o in enumerate(outcomes)))

    # when
    measurements.record(now=NOW)

    # then
    row = _rollup(Span.HOUR)
    assert (row.requests, row.succeeded, row.cancelled, row.failed) == (6, 2, 1, 1)
    assert row.errors == {"upstream_cut": 1}


def test_only_what_was_served_makes_a_mix_and_what_was_charged_is_paid() -> None:
    # given: a cut and a cancelled answer that were charged, a failure that claims tokens
    offer = make_offer()
    huge = CanonicalUsage(input_tokens=10**9, output_tokens=10**9)
    post(
        attempt(offer),
        attempt(offer, 1, outcome="client_cancelled", tenant_cost_pico=300),
        attempt(offer, 2, outcome="upstream_cut", tenant_cost_pico=200),
        attempt(offer, 3, outcome="upstream_error", usage=huge, tenant_cost_pico=0),
        attempt(offer, 4, outcome="gateway_error", usage=huge, tenant_cost_pico=0),
    )

    # when
    measurements.record(now=NOW)

    # then
    row = _rollup(Span.HOUR)
    assert row.served == {
        "7.9.requests": 1, "7.9.input": 300, "7.9.cached": 200, "7.9.output": 100
    }  # fmt: skip
    assert (row.input_tokens, row.output_tokens) == (300, 100)
    assert (row.cost_pico, row.paid_output_tokens) == (1_500, 300)


def test_what_a_person_decided_counts_no_more_than_what_is_in_review() -> None:
    # given
    offer = make_offer()
    post(attempt(offer))
    post(attempt(offer, 1), quarantine_reason="a claim beyond what was asked")

    # when
    measurements.record(now=NOW)

    # then: nor does the speed that the claim makes
    row = _rollup(Span.HOUR)
    assert (row.requests, row.succeeded, row.output_tokens, row.cost_pico) == (2, 2, 100, 1_000)
    assert histograms.size(row.output_tps_histogram) == 1
    assert histograms.size(row.ttft_ms_histogram) == 2


def test_a_settle_after_its_expiry_is_the_same_attempt() -> None:
    # given: 20 tokens at the expiry, 100 in the end, and the difference charged
    offer = make_offer()
    one_id = request_id_of(int(NOW.timestamp() * 1000))
    so_far = CanonicalUsage(input_tokens=300, output_tokens=20)
    expired = {"attempt": -1, "outcome": "unknown", "usage": so_far, "tenant_cost_pico": 400}
    post(attempt(offer, **expired), request_id=one_id)
    post(attempt(offer, tenant_cost_pico=600), request_id=one_id)

    # when
    measurements.record(now=NOW)

    # then
    row = _rollup(Span.HOUR)
    assert (row.requests, row.succeeded) == (1, 1)
    assert (row.cost_pico, row.paid_output_tokens, row.output_tokens) == (1_000, 100, 100)


def test_drafts_that_no_engine_makes_count_for_nothing() -> None:
    # given
    offer = make_offer()
    told = (
        {"drafted": 60, "accepted": 30, "steps": 70},
        {"drafted": 1, "accepted": 10**9, "steps": 1},
        {"drafted": 10**9, "accepted": 0, "steps": 1},
        {"drafted": 60, "accepted": 30, "steps": 10**9},
    )
    post(*(attempt(offer, n, detail=AttemptDetail(speculation=t)) for n, t in enumerate(told)))

    # when
    measurements.record(now=NOW)

    # then
    row = _rollup(Span.HOUR)
    assert (row.drafted_tokens, row.accepted_tokens, row.target_steps) == (60, 30, 70)


@pytest.mark.parametrize(
    ("outcome", "detail", "failed"),
    [
        ("deadline", AttemptDetail(), 1),
        ("deadline", AttemptDetail(output_bytes=500), 0),
        ("upstream_error", AttemptDetail(error=AuthFailed.code), 0),
        ("upstream_error", AttemptDetail(error=UpstreamFailed.code), 1),
        ("gateway_error", AttemptDetail(), 0),
    ],
)
def test_a_seller_answers_for_its_own_failures_only(
    outcome: str, detail: AttemptDetail, failed: int
) -> None:
    # given
    post(attempt(make_offer(), outcome=outcome, detail=detail))

    # when
    measurements.record(now=NOW)

    # then
    row = _rollup(Span.HOUR)
    assert (row.requests, row.failed, row.minutes_seen) == (1, failed, failed)
    assert sum(row.errors.values()) == failed


def test_uptime_counts_minutes_once() -> None:
    # given: a minute that fails and then succeeds, and one that only fails
    offer = make_offer()
    at_ms = int(NOW.timestamp() * 1000)
    for number, (outcome, minute) in enumerate(
        [("upstream_error", 0), ("ok", 0), ("ok", 0), ("upstream_error", 1)]
    ):
        post(
            attempt(offer, number, outcome=outcome, occurred_ms=at_ms + 60_000 * minute),
        )
        # when
        measurements.record(now=NOW)

    # then
    hour = _rollup(Span.HOUR)
    assert (hour.minutes_seen, hour.minutes_up) == (2, 1)


def test_a_detail_that_cannot_be_read_stops_nothing() -> None:
    # given
    offer = make_offer()
    for detail in ([], 7, {"ttft_ms": "soon"}):
        post(attempt(offer), detail=detail)

    # when
    measurements.record(now=NOW)

    # then
    assert _rollup(Span.MINUTE).requests == 3


def test_a_credential_that_a_provider_refused_is_not_used_again() -> None:
    # given
    offer = make_offer()
    credential = credentials.store(provider=offer.provider, label="main", secret="sk-revoked")
    before_it_was_stored = int(credential.created_at.timestamp() * 1000) - 1
    said = AttemptDetail(status=401, error=AuthFailed.code)
    refused = {"outcome": "upstream_error", "detail": said}

    # when
    post(attempt(offer, occurred_ms=before_it_was_stored, **refused))
    measurements.record(now=NOW)
    credential.refresh_from_db()
    after_an_old_refusal = credential.dead_reason
    post(attempt(offer, 1, **refused))
    measurements.record(now=NOW)

    # then
    assert after_an_old_refusal == ""
    credential.refresh_from_db()
    assert credential.dead_reason == "answered 401: upstream_credential_refused"


@pytest.mark.parametrize("status", [401, 402, 403])
@pytest.mark.parametrize(
    "problem", [ContentFiltered, RequestRefused, ModelNotFound, UpstreamFailed, BadRequest]
)
def test_no_status_alone_kills_a_credential(status: int, problem: type[ProviderError]) -> None:
    # given
    offer = make_offer()
    credential = credentials.store(provider=offer.provider, label="main", secret="sk-good")

    # when
    detail = AttemptDetail(status=status, error=problem.code)
    post(attempt(offer, outcome="upstream_error", detail=detail))
    measurements.record(now=NOW)

    # then
    credential.refresh_from_db()
    assert (credential.dead_reason, credential.doubted_at) == ("", None)


def test_a_refusal_that_does_not_say_of_what_is_only_doubted() -> None:
    # given
    offer = make_offer()
    credential = credentials.store(provider=offer.provider, label="main", secret="sk-good")

    # when
    doubted = attempt(
        offer,
        outcome="upstream_error",
        detail=AttemptDetail(status=403, error=AccountDoubted.code),
    )
    post(doubted)
    measurements.record(now=NOW)

    # then
    credential.refresh_from_db()
    assert credential.dead_reason == ""
    assert credential.doubted_at == datetime.fromtimestamp(doubted.occurred_ms / 1000, tz=UTC)


def test_speeds_are_medians_of_the_last_hour() -> None:
    # given
    offer = make_offer()
    for number, ttft_ms in enumerate((40.0, 50.0, 5_000.0)):
        post(attempt(offer, number, detail=AttemptDetail(ttft_ms=ttft_ms)))
    measurements.record(now=NOW)

    # when
    speeds = measurements.speeds(NOW)

    # then
    speed = speeds[offer.pk]
    assert speed.sample == 3
    assert speed.ttft_ms_p50 == pytest.approx(50, rel=0.05)
    assert speed.output_tps_p50 is None
    assert measurements.speeds(NOW + timedelta(hours=2)) == {}


def test_old_rollups_are_forgotten_by_span() -> None:
    # given
    post(attempt(make_offer()))
    measurements.record(now=NOW)

    # when
    measurements.forget_old(now=NOW + timedelta(days=2))

    # then
    kept = set(MeasurementRollup.objects.values_list("span", flat=True))
    assert kept == {Span.HOUR, Span.DAY}
