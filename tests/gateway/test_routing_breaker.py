"""When an offer is left alone, for how long, and what lets it back."""

import pytest

from gateway.routing.breaker import OPEN_MS, OPEN_MS_MAX, PERMANENT_OPEN_MS, Breaker

OFFER = 7


@pytest.fixture
def breaker() -> Breaker:
    return Breaker()


def fail(breaker: Breaker, times: int, *, at_ms: int = 0) -> None:
    for _ in range(times):
        breaker.failure(OFFER, at_ms, reason="upstream_timeout")


def test_it_stays_closed_below_three_failures_in_a_row(breaker: Breaker) -> None:
    fail(breaker, 2)

    assert breaker.allow(OFFER, 0)
    assert breaker.state(OFFER, 0) == "closed"


def test_it_opens_at_the_third_failure_and_says_for_how_long(breaker: Breaker) -> None:
    fail(breaker, 3)

    assert not breaker.allow(OFFER, 0)
    assert not breaker.allow(OFFER, OPEN_MS - 1)
    assert breaker.retry_after_ms(OFFER, 1_000) == 9_000
    assert breaker.why(OFFER, 1_000) == (
        "after upstream_timeout: closed to requests for another 9 s"
    )


def test_other_offers_are_not_touched(breaker: Breaker) -> None:
    fail(breaker, 3)

    assert breaker.allow(OFFER + 1, 0)


def test_a_success_between_failures_starts_the_count_again(breaker: Breaker) -> None:
    fail(breaker, 2)
    breaker.success(OFFER, 0)
    fail(breaker, 2)

    assert breaker.allow(OFFER, 0)


def test_failures_far_apart_do_not_add_up(breaker: Breaker) -> None:
    fail(breaker, 2, at_ms=0)
    fail(breaker, 1, at_ms=30_001)

    assert breaker.allow(OFFER, 30_001)


def test_after_the_pause_one_trial_goes_through_and_only_one(breaker: Breaker) -> None:
    # given an open breaker whose time is over
    fail(breaker, 3)
    assert breaker.allow(OFFER, OPEN_MS)
    assert breaker.state(OFFER, OPEN_MS) == "half_open"

    # when one attempt begins
    breaker.begin(OFFER, OPEN_MS)

    # then nobody else may try until it reports
    assert not breaker.allow(OFFER, OPEN_MS + 1)
    assert breaker.why(OFFER, OPEN_MS + 1) == "after upstream_timeout: one trial is under way"


def test_asking_does_not_use_up_the_trial(breaker: Breaker) -> None:
    fail(breaker, 3)

    assert [breaker.allow(OFFER, OPEN_MS) for _ in range(3)] == [True, True, True]


def test_a_good_trial_closes_it(breaker: Breaker) -> None:
    fail(breaker, 3)
    breaker.begin(OFFER, OPEN_MS)
    breaker.success(OFFER, OPEN_MS + 5)

    assert breaker.state(OFFER, OPEN_MS + 5) == "closed"


def test_every_failed_trial_doubles_the_pause_up_to_a_limit(breaker: Breaker) -> None:
    fail(breaker, 3)
    now_ms = OPEN_MS
    pauses = []

    for _ in range(6):
        breaker.begin(OFFER, now_ms)
        breaker.failure(OFFER, now_ms)
        pauses.append(breaker.retry_after_ms(OFFER, now_ms))
        now_ms += pauses[-1]

    assert pauses == [20_000, 40_000, 80_000, 160_000, OPEN_MS_MAX, OPEN_MS_MAX]


def test_a_trial_that_never_reports_does_not_shut_the_offer_for_ever(breaker: Breaker) -> None:
    fail(breaker, 3)
    breaker.begin(OFFER, OPEN_MS)

    assert breaker.allow(OFFER, OPEN_MS + 60_000)


def test_a_refused_credential_opens_it_at_once(breaker: Breaker) -> None:
    breaker.failure(OFFER, 0, reason="upstream_credential_refused", permanent=True)

    assert breaker.retry_after_ms(OFFER, 0) == PERMANENT_OPEN_MS


def test_it_waits_as_long_as_the_offer_asked(breaker: Breaker) -> None:
    breaker.failure(OFFER, 0, reason="upstream_rate_limited", retry_after_ms=2_500)

    assert breaker.retry_after_ms(OFFER, 0) == 2_500


def test_a_failure_while_open_does_not_shorten_the_pause(breaker: Breaker) -> None:
    breaker.failure(OFFER, 0, permanent=True)
    breaker.failure(OFFER, 1_000, retry_after_ms=1_000)

    assert breaker.retry_after_ms(OFFER, 1_000) == PERMANENT_OPEN_MS - 1_000
