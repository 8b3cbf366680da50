"""When an offer is left alone, by whom, for how long, and what lets it back."""

import pytest

from gateway.routing import breaker as breakers
from gateway.routing.breaker import (
    FAILURE_WINDOW_MS,
    OPEN_MS,
    OPEN_MS_MAX,
    PERMANENT_OPEN_MS,
    Breaker,
)

OFFER = (7, "")
ANNE, BERT, CHRIS, DORA = 1, 2, 3, 4


@pytest.fixture
def breaker() -> Breaker:
    return Breaker()


def fail(breaker: Breaker, times: int, *, caller: int = ANNE, at_ms: int = 0) -> None:
    for _ in range(times):
        breaker.failure(OFFER, caller, at_ms, reason="upstream_timeout")


def fail_all(breaker: Breaker, at_ms: int = 0) -> None:
    """Three callers in a row, and nobody served between."""
    for caller in (ANNE, BERT, CHRIS):
        fail(breaker, 1, caller=caller, at_ms=at_ms)


def test_it_stays_closed_below_three_failures_in_a_row(breaker: Breaker) -> None:
    fail(breaker, 2)

    assert breaker.allow(OFFER, ANNE, 0)
    assert breaker.state(OFFER, ANNE, 0) == "closed"


def test_it_opens_at_the_third_failure_and_says_for_how_long(breaker: Breaker) -> None:
    fail(breaker, 3)

    assert not breaker.allow(OFFER, ANNE, 0)
    assert not breaker.allow(OFFER, ANNE, OPEN_MS - 1)
    assert breaker.retry_after_ms(OFFER, ANNE, 500) == 1_500
    assert breaker.why(OFFER, ANNE, 500) == (
        "after upstream_timeout: closed to requests for another 2 s"
    )


def test_other_offers_are_not_touched(breaker: Breaker) -> None:
    fail(breaker, 3)

    assert breaker.allow((8, ""), ANNE, 0)


def test_a_caller_s_own_failures_close_it_to_that_caller_only(breaker: Breaker) -> None:
    # however many, and also while nobody else calls
    fail(breaker, 500)

    assert not breaker.allow(OFFER, ANNE, 0)
    assert breaker.allow(OFFER, BERT, 0)
    assert breaker.state(OFFER, BERT, 0) == "closed"
    assert breaker.why(OFFER, BERT, 0) == ""
    assert breaker.retry_after_ms(OFFER, BERT, 0) == 0


@pytest.mark.parametrize(
    "asked", [{"permanent": True}, {"retry_after_ms": 60_000}], ids=["permanent", "retry-after"]
)
def test_what_one_request_may_have_caused_closes_it_to_its_caller_only(
    breaker: Breaker, asked: dict[str, int]
) -> None:
    breaker.failure(OFFER, ANNE, 0, **asked)  # type: ignore[arg-type]

    assert not breaker.allow(OFFER, ANNE, 0)
    assert breaker.allow(OFFER, BERT, 0)


def test_three_callers_in_a_row_close_it_to_all(breaker: Breaker) -> None:
    fail_all(breaker)

    assert not breaker.allow(OFFER, DORA, 0)
    assert breaker.why(OFFER, DORA, 0) == (
        "after upstream_timeout: closed to requests for another 2 s"
    )


def test_somebody_who_was_served_between_says_that_it_is_not_the_offer(breaker: Breaker) -> None:
    for poisoner in range(10, 200):
        fail(breaker, 1, caller=poisoner)
        breaker.success(OFFER, DORA, 0)

    assert breaker.allow(OFFER, DORA, 0)
    assert breaker.state(OFFER, BERT, 0) == "closed"


def test_callers_who_failed_far_apart_do_not_add_up(breaker: Breaker) -> None:
    fail(breaker, 1, caller=ANNE)
    fail(breaker, 1, caller=BERT)
    fail(breaker, 1, caller=CHRIS, at_ms=FAILURE_WINDOW_MS + 1)

    assert breaker.allow(OFFER, DORA, FAILURE_WINDOW_MS + 1)


def test_a_success_between_failures_starts_the_count_again(breaker: Breaker) -> None:
    fail(breaker, 2)
    breaker.success(OFFER, ANNE, 0)
    fail(breaker, 2)

    assert breaker.allow(OFFER, ANNE, 0)


def test_another_caller_s_success_does_not_let_the_poisoner_back(breaker: Breaker) -> None:
    fail(breaker, 3)
    breaker.success(OFFER, BERT, 0)

    assert not breaker.allow(OFFER, ANNE, 0)


def test_failures_far_apart_do_not_add_up(breaker: Breaker) -> None:
    fail(breaker, 2, at_ms=0)
    fail(breaker, 1, at_ms=FAILURE_WINDOW_MS + 1)

    assert breaker.allow(OFFER, ANNE, FAILURE_WINDOW_MS + 1)


def test_after_the_pause_one_trial_goes_through_and_only_one(breaker: Breaker) -> None:
    # given an offer closed to all whose time is over
    fail_all(breaker)
    assert breaker.allow(OFFER, DORA, OPEN_MS)
    assert breaker.state(OFFER, DORA, OPEN_MS) == "half_open"

    # when one attempt begins
    breaker.begin(OFFER, DORA, OPEN_MS)

    # then nobody else may try until it reports
    assert not breaker.allow(OFFER, 5, OPEN_MS + 1)
    assert breaker.why(OFFER, 5, OPEN_MS + 1) == "after upstream_timeout: one trial is under way"


def test_asking_does_not_use_up_the_trial(breaker: Breaker) -> None:
    fail_all(breaker)

    assert [breaker.allow(OFFER, DORA, OPEN_MS) for _ in range(3)] == [True, True, True]


def test_a_good_trial_closes_it(breaker: Breaker) -> None:
    fail_all(breaker)
    breaker.begin(OFFER, DORA, OPEN_MS)
    breaker.success(OFFER, DORA, OPEN_MS + 5)

    assert breaker.state(OFFER, DORA, OPEN_MS + 5) == "closed"
    assert breaker.state(OFFER, 5, OPEN_MS + 5) == "closed"


@pytest.mark.parametrize("whose", ["own", "all"])
def test_every_failed_trial_doubles_the_pause_up_to_a_limit(breaker: Breaker, whose: str) -> None:
    fail(breaker, 3) if whose == "own" else fail_all(breaker)
    now_ms = OPEN_MS
    pauses = []

    for number in range(6):
        caller = ANNE if whose == "own" else 10 + number
        breaker.begin(OFFER, caller, now_ms)
        breaker.failure(OFFER, caller, now_ms)
        pauses.append(breaker.retry_after_ms(OFFER, caller, now_ms))
        now_ms += pauses[-1]

    assert pauses == [4_000, 8_000, 16_000, OPEN_MS_MAX, OPEN_MS_MAX, OPEN_MS_MAX]


def test_a_poisoner_s_trial_decides_nothing_for_others_and_is_in_nobody_s_way(
    breaker: Breaker,
) -> None:
    # given an offer that was closed to all, and a caller that it is closed to besides
    fail(breaker, 3, caller=DORA)
    fail_all(breaker)
    # when the poisoner is the first to try, and hangs
    breaker.begin(OFFER, DORA, OPEN_MS)
    # then another may try as well
    assert breaker.allow(OFFER, 5, OPEN_MS + 1)
    # and when the poisoner fails, only its own pause is doubled
    breaker.failure(OFFER, DORA, OPEN_MS + 2)
    assert breaker.retry_after_ms(OFFER, DORA, OPEN_MS + 2) == 4_000
    assert breaker.allow(OFFER, 5, OPEN_MS + 2)


def test_a_trial_that_says_nothing_leaves_the_place_to_the_next(breaker: Breaker) -> None:
    fail_all(breaker)
    breaker.begin(OFFER, DORA, OPEN_MS)

    breaker.release(OFFER, DORA)

    assert breaker.allow(OFFER, 5, OPEN_MS + 1)


def test_a_trial_that_never_reports_does_not_shut_the_offer_for_ever(breaker: Breaker) -> None:
    fail_all(breaker)
    breaker.begin(OFFER, DORA, OPEN_MS)

    assert breaker.allow(OFFER, 5, OPEN_MS + 60_000)


def test_a_refused_credential_closes_it_to_all_at_once(breaker: Breaker) -> None:
    breaker.failure(
        OFFER, ANNE, 0, reason="upstream_credential_refused", permanent=True, concerns_all=True
    )

    assert breaker.retry_after_ms(OFFER, ANNE, 0) == PERMANENT_OPEN_MS
    assert breaker.retry_after_ms(OFFER, BERT, 0) == PERMANENT_OPEN_MS


def test_a_new_credential_address_or_limit_starts_afresh(breaker: Breaker) -> None:
    # given
    breaker.failure(OFFER, ANNE, 0, permanent=True, concerns_all=True)
    renewed = (OFFER[0], "credential 2")
    # then what was held against the old one ends, and what is late by then counts for nothing
    assert breaker.allow(renewed, ANNE, 1)
    breaker.failure(OFFER, ANNE, 2, permanent=True, concerns_all=True)
    assert breaker.allow(renewed, ANNE, 3)
    assert breaker.allow(renewed, BERT, 3)


def test_it_waits_as_long_as_the_offer_asked(breaker: Breaker) -> None:
    breaker.failure(OFFER, ANNE, 0, reason="upstream_rate_limited", retry_after_ms=2_500)

    assert breaker.retry_after_ms(OFFER, ANNE, 0) == 2_500


def test_a_failure_while_open_does_not_shorten_the_pause(breaker: Breaker) -> None:
    breaker.failure(OFFER, ANNE, 0, permanent=True)
    breaker.failure(OFFER, ANNE, 1_000, retry_after_ms=1_000)

    assert breaker.retry_after_ms(OFFER, ANNE, 1_000) == PERMANENT_OPEN_MS - 1_000


def test_marks_are_bounded_and_the_oldest_give_way(
    breaker: Breaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setattr(breakers, "MARKS_MAX", 10)
    # when
    for caller in range(100, 200):
        fail(breaker, 3, caller=caller)
        breaker.success(OFFER, ANNE, 0)
    # then
    assert len(breaker._marks) == 10
    assert breaker.allow(OFFER, 189, 0)
    assert not breaker.allow(OFFER, 190, 0)
