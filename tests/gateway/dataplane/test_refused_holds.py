"""What a caller is told of a refused hold: every code and window, exactly, and what to do next."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.holding.holds import Refused
from gateway import errors
from gateway.dataplane import refused_holds
from gateway.dataplane.exchange import Hold
from tests.gateway.dataplane.settling.test_dataplane_charges import PRINCIPAL

HOLD = Hold(
    nano=1_250_000_000,
    ceiling_nano=1_250_000_000,
    overdraft_nano=0,
    input_tokens=300,
    output_tokens=700,
    spend=(),
)
NAMED = replace(PRINCIPAL, team_name="Search", tenant_name="Aurora Ltd")


def refused(
    code: str,
    *,
    kind: str = "tenant",
    scope_id: str = "71",
    window: str = "",
    limit: int = 0,
    left: int = 0,
    retry_after_ms: int = 0,
) -> Refused:
    return Refused(code, kind, scope_id, window, limit, left, retry_after_ms)


def told(refusal: Refused, hold: Hold | None = HOLD) -> errors.GatewayError:
    return refused_holds.error_of(refusal, NAMED, hold)


def test_a_revoked_key_is_no_key() -> None:
    error = told(refused("key_revoked", kind="key", scope_id="5"))

    assert (error.status, error.code, error.retryable) == (401, "revoked_api_key", False)
    assert error.message == "This API key was revoked."


def test_a_suspended_tenant_may_not() -> None:
    error = told(refused("tenant_suspended"))

    assert (error.status, error.code, error.retryable) == (403, "tenant_suspended", False)
    assert error.message == "This tenant is suspended."


@pytest.mark.parametrize(
    ("kind", "scope_id", "window", "words"),
    [
        ("tenant", "71", "credit", "The credit of tenant “Aurora Ltd” has"),
        ("tenant", "71", "month", "The limit per month of tenant “Aurora Ltd” has"),
        ("team", "9", "week", "The limit per week of team “Search” has"),
        ("key", "5", "day", "The limit per day of key “key” has"),
        ("key", "5", "lifetime", "The limit per lifetime of key “key” has"),
        ("model", "fox", "day", "The limit per day of model fox has"),
        ("provider", "acme", "month", "The limit per month of provider acme has"),
        ("session", "71:s1", "session", "The limit of this session has"),
    ],
)
def test_an_empty_budget_names_whose_it_is_and_both_sums(
    kind: str, scope_id: str, window: str, words: str
) -> None:
    refusal = refused(
        "over_budget",
        kind=kind,
        scope_id=scope_id,
        window=window,
        limit=10_000_000_000,
        left=37_500_000,
    )

    error = told(refusal)

    assert (error.status, error.code, error.retryable) == (402, "over_budget", False)
    assert error.message == (
        f"{words} $0.0375 left; this request may cost up to $1.25. "
        "Lower max_tokens, or ask for more."
    )
    assert error.detail == {
        "scope": kind,
        "scope_id": scope_id,
        "window": window,
        "limit_usd": "10",
        "left_usd": "0.0375",
        "needed_usd": "1.25",
    }
    assert error.retry_after_s is None


def test_too_many_sessions_end_by_no_waiting_that_a_client_would_do() -> None:
    error = told(refused("too_many_sessions", window="sessions", limit=3))

    assert (error.status, error.code, error.retryable) == (429, "too_many_sessions", False)
    assert error.message.startswith("3 sessions of this tenant are open.")
    assert error.message.endswith("send no session id, or that of an open one.")


@pytest.mark.parametrize(
    ("code", "window", "limit", "left", "words", "told_code"),
    [
        ("rate_limited", "rpm", 60, 0, "60 requests per minute", "rate_limit_exceeded"),
        (
            "rate_limited",
            "tpm",
            5_000,
            900,
            "5000 tokens per minute, 900 left; this request may take 1000",
            "rate_limit_exceeded",
        ),
        (
            "concurrency",
            "concurrency",
            4,
            0,
            "4 requests at the same time",
            "concurrency_exceeded",
        ),
    ],
)
def test_a_rate_says_its_figures_and_how_long_to_wait(
    code: str, window: str, limit: int, left: int, words: str, told_code: str
) -> None:
    refusal = refused(
        code, kind="team", scope_id="9", window=window, limit=limit, left=left, retry_after_ms=4_001
    )

    error = told(refusal)

    assert (error.status, error.code, error.retry_after_s) == (429, told_code, 5)
    assert error.message == f"Rate limit of team “Search”: {words}. Try again in 5 s."
    assert error.retryable
    wanted = HOLD.tokens if window == "tpm" else 1
    assert error.detail == {
        "scope": "team",
        "scope_id": "9",
        "window": window,
        "limit": limit,
        "left": left,
        "wanted": wanted,
    }


@given(st.integers(0, 10**7))
def test_a_wait_is_whole_seconds_never_none_and_never_too_short(retry_after_ms: int) -> None:
    error = told(refused("rate_limited", window="rpm", limit=60, retry_after_ms=retry_after_ms))

    assert error.retry_after_s is not None
    assert error.retry_after_s >= 1
    assert 0 <= error.retry_after_s * 1000 - retry_after_ms < 1000 or retry_after_ms == 0


def test_a_wait_longer_than_clients_wait_is_not_asked_for_at_all() -> None:
    longest_ms = errors.WAITED_S_MAX * 1000

    just = told(refused("rate_limited", window="rpm", limit=1, retry_after_ms=longest_ms))
    beyond = told(refused("rate_limited", window="rpm", limit=1, retry_after_ms=longest_ms + 1))

    assert (just.retryable, beyond.retryable) == (True, False)


def test_what_is_more_than_a_whole_minute_is_wrong_at_any_time() -> None:
    refusal = refused("rate_limited", window="tpm", limit=999, left=999, retry_after_ms=30_000)

    error = told(refusal)

    assert (error.status, error.code, error.retryable) == (400, "exceeds_rate_limit", False)
    assert error.retry_after_s is None
    assert error.message == (
        "This request may take 1000 tokens (300 of prompt, 700 of answer), and the rate limit of "
        "tenant “Aurora Ltd” is 999 tokens per minute: it can never be admitted. "
        "Lower max_tokens, or shorten the prompt."
    )


@pytest.mark.parametrize("window", ["rpm", "concurrency"])
def test_a_limit_of_nothing_admits_nothing_and_says_so(window: str) -> None:
    error = told(refused("rate_limited", window=window, limit=0, retry_after_ms=30_000))

    assert (error.status, error.code) == (400, "exceeds_rate_limit")
    assert error.message == ("The rate limit of tenant “Aurora Ltd” admits no requests at all.")


def test_a_quote_which_holds_nothing_is_refused_by_the_same_words() -> None:
    refusal = refused("rate_limited", window="rpm", limit=60, retry_after_ms=1)

    assert told(refusal, hold=None).message == told(refusal).message


@given(
    st.sampled_from(["over_budget", "rate_limited", "concurrency", "too_many_sessions"]),
    st.sampled_from(["credit", "day", "week", "month", "lifetime", "session", "rpm", "tpm"]),
    st.sampled_from(["tenant", "team", "key", "model", "provider", "session"]),
    st.integers(0, 2**52),
    st.integers(0, 2**52),
)
def test_no_refusal_of_a_limit_looks_like_a_wrong_key_or_an_outage(
    code: str, window: str, kind: str, limit: int, left: int
) -> None:
    error = told(
        refused(code, kind=kind, window=window, limit=limit, left=left, retry_after_ms=500)
    )

    assert error.status in (400, 402, 429)
    assert (error.retry_after_s is None) == (not error.retryable)
    assert error.detail["scope"] == kind
    assert error.message.endswith(".")
