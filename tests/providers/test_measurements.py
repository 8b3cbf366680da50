"""From usage events to rollups: every attempt once, in each span, whatever is delivered twice."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from billing import metering, registers
from billing.events import AttemptDetail
from billing.usage import CanonicalUsage
from providers import credentials, histograms, measurements
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
from providers.models import MeasurementRollup
from tests.providers.market import NOW, SHARD, append, attempt, make_offer

Span = MeasurementRollup.Span


@pytest.fixture
def stream(redis_client: redis.Redis, transactional_db: None) -> redis.Redis:
    metering.ensure_groups(redis_client)
    return redis_client


def _rollup(span: str) -> MeasurementRollup:
    return MeasurementRollup.objects.get(span=span)


def test_an_attempt_counts_once_in_each_span(stream: redis.Redis) -> None:
    # given
    offer = make_offer()
    append(stream, attempt(offer), attempt(offer, 1))

    # when
    read = measurements.record(stream, now=NOW)

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


def test_a_batch_that_is_delivered_twice_counts_once(stream: redis.Redis) -> None:
    # given
    append(stream, attempt(make_offer()))
    measurements.record(stream, now=NOW)
    key = registers.stream_key(registers.tag_of_shard(SHARD))
    stream.xgroup_setid(key, registers.GROUP_MEASUREMENTS, "0")

    # when
    read = measurements.record(stream, now=NOW)

    # then
    assert read == 1
    assert _rollup(Span.MINUTE).requests == 1


def test_an_entry_that_claims_too_much_stops_none_of_the_others(stream: redis.Redis) -> None:
    # given
    offer = make_offer()
    absurd = CanonicalUsage(input_tokens=1, output_tokens=2**70)
    append(stream, attempt(offer), attempt(offer, 1, usage=absurd), attempt(offer, 2))

    # when
    read = [measurements.record(stream, now=NOW) for _ in range(2)]

    # then
    assert read == [3, 0]
    assert (_rollup(Span.DAY).requests, _rollup(Span.DAY).output_tokens) == (2, 200)


def test_what_was_read_and_not_acknowledged_comes_first(stream: redis.Redis) -> None:
    # given
    offer = make_offer()
    key = registers.stream_key(registers.tag_of_shard(SHARD))
    append(stream, attempt(offer))
    stream.xreadgroup(registers.GROUP_MEASUREMENTS, measurements.CONSUMER, {key: ">"})
    append(stream, attempt(offer, 1))

    # when
    read = [measurements.record(stream, now=NOW) for _ in range(3)]

    # then
    assert read == [1, 1, 0]
    assert _rollup(Span.MINUTE).requests == 2
    assert stream.xpending(key, registers.GROUP_MEASUREMENTS)["pending"] == 0


def test_a_rollback_acknowledges_nothing(
    stream: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    append(stream, attempt(make_offer()))

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("killed between write and commit")

    monkeypatch.setattr(measurements, "_bury_refused_credentials", fail)

    # when
    with pytest.raises(RuntimeError):
        measurements.record(stream, now=NOW)

    # then
    assert not MeasurementRollup.objects.exists()
    key = registers.stream_key(registers.tag_of_shard(SHARD))
    assert stream.xpending(key, registers.GROUP_MEASUREMENTS)["pending"] == 1


def test_outcomes_are_told_apart(stream: redis.Redis) -> None:
    # given
    offer = make_offer()
    outcomes = ("ok", "client_cancelled", "upstream_cut", "refused", "unknown")
    append(stream, *(attempt(offer, n, outcome=o) for n, o in enumerate(outcomes)))

    # when
    measurements.record(stream, now=NOW)

    # then
    row = _rollup(Span.HOUR)
    assert (row.requests, row.succeeded, row.cancelled, row.failed) == (5, 1, 1, 1)
    assert row.errors == {"upstream_cut": 1, "refused": 1, "unknown": 1}


def test_uptime_counts_minutes_once(stream: redis.Redis) -> None:
    # given: a minute that fails and then succeeds, and one that only fails
    offer = make_offer()
    at_ms = int(NOW.timestamp() * 1000)
    for number, (outcome, minute) in enumerate(
        [("upstream_error", 0), ("ok", 0), ("ok", 0), ("upstream_error", 1)]
    ):
        append(
            stream,
            attempt(offer, number, outcome=outcome, occurred_ms=at_ms + 60_000 * minute),
        )
        # when
        measurements.record(stream, now=NOW)

    # then
    hour = _rollup(Span.HOUR)
    assert (hour.minutes_seen, hour.minutes_up) == (2, 1)


def test_an_entry_that_cannot_be_read_stops_nothing(stream: redis.Redis) -> None:
    # given
    key = registers.stream_key(registers.tag_of_shard(SHARD))
    stream.xadd(key, {"e": b"{broken"})
    append(stream, attempt(make_offer()))

    # when
    measurements.record(stream, now=NOW)

    # then
    assert _rollup(Span.MINUTE).requests == 1


def test_a_credential_that_a_provider_refused_is_not_used_again(stream: redis.Redis) -> None:
    # given
    offer = make_offer()
    credential = credentials.store(provider=offer.provider, label="main", secret="sk-revoked")
    before_it_was_stored = int(credential.created_at.timestamp() * 1000) - 1
    said = AttemptDetail(status=401, error=AuthFailed.code)
    refused = {"outcome": "upstream_error", "detail": said}

    # when
    append(stream, attempt(offer, occurred_ms=before_it_was_stored, **refused))
    measurements.record(stream, now=NOW)
    credential.refresh_from_db()
    after_an_old_refusal = credential.dead_reason
    append(stream, attempt(offer, 1, **refused))
    measurements.record(stream, now=NOW)

    # then
    assert after_an_old_refusal == ""
    credential.refresh_from_db()
    assert credential.dead_reason == "answered 401: upstream_credential_refused"


@pytest.mark.parametrize("status", [401, 402, 403])
@pytest.mark.parametrize(
    "problem", [ContentFiltered, RequestRefused, ModelNotFound, UpstreamFailed, BadRequest]
)
def test_no_status_alone_kills_a_credential(
    stream: redis.Redis, status: int, problem: type[ProviderError]
) -> None:
    # given
    offer = make_offer()
    credential = credentials.store(provider=offer.provider, label="main", secret="sk-good")

    # when
    detail = AttemptDetail(status=status, error=problem.code)
    append(stream, attempt(offer, outcome="upstream_error", detail=detail))
    measurements.record(stream, now=NOW)

    # then
    credential.refresh_from_db()
    assert (credential.dead_reason, credential.doubted_at) == ("", None)


def test_a_refusal_that_does_not_say_of_what_is_only_doubted(stream: redis.Redis) -> None:
    # given
    offer = make_offer()
    credential = credentials.store(provider=offer.provider, label="main", secret="sk-good")

    # when
    doubted = attempt(
        offer,
        outcome="upstream_error",
        detail=AttemptDetail(status=403, error=AccountDoubted.code),
    )
    append(stream, doubted)
    measurements.record(stream, now=NOW)

    # then
    credential.refresh_from_db()
    assert credential.dead_reason == ""
    assert credential.doubted_at == datetime.fromtimestamp(doubted.occurred_ms / 1000, tz=UTC)


def test_speeds_are_medians_of_the_last_hour(stream: redis.Redis) -> None:
    # given
    offer = make_offer()
    for number, ttft_ms in enumerate((40.0, 50.0, 5_000.0)):
        append(stream, attempt(offer, number, detail=AttemptDetail(ttft_ms=ttft_ms)))
    measurements.record(stream, now=NOW)

    # when
    speeds = measurements.speeds(NOW)

    # then
    speed = speeds[offer.pk]
    assert speed.sample == 3
    assert speed.ttft_ms_p50 == pytest.approx(50, rel=0.05)
    assert speed.output_tps_p50 is None
    assert measurements.speeds(NOW + timedelta(hours=2)) == {}


def test_old_rollups_are_forgotten_by_span(stream: redis.Redis) -> None:
    # given
    append(stream, attempt(make_offer()))
    measurements.record(stream, now=NOW)

    # when
    measurements.forget_old(now=NOW + timedelta(days=2))

    # then
    kept = set(MeasurementRollup.objects.values_list("span", flat=True))
    assert kept == {Span.HOUR, Span.DAY}
