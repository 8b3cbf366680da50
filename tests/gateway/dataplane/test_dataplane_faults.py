"""The fault wall: a provider that misbehaves, seen from the caller and from the books.

Sixteen faults, each alone and with a steady second offer behind it. Nothing may hang, no answer
that broke off may look complete, and nobody pays for what was not delivered.
"""

from decimal import Decimal
from typing import Any

import pytest

from tests.fakes import upstream as fake
from tests.fakes.upstream import INPUT_TOKENS, TOKENS, FakeUpstream
from tests.gateway.world import (
    INPUT_PICO,
    OUTPUT_PICO,
    World,
    add_offer,
    add_provider,
    cost_pico,
    eventually,
    nano,
    shown_text,
    stream_events,
)

LIMITS = {
    # The sellers of these tests are slow where the machine is.
    "TOKENHOUSE_FIRST_BYTE_TIMEOUT_MS": "2500",
    "TOKENHOUSE_FIRST_TOKEN_TIMEOUT_MS": "3000",
    "TOKENHOUSE_TOKEN_GAP_TIMEOUT_MS": "2500",
    "TOKENHOUSE_DEADLINE_MS": "8000",
}
GOOD_PICO = cost_pico(INPUT_TOKENS, 4, len(TOKENS))
FAULTS = {
    "s01": fake.rate_limited_later,
    "s02": fake.rate_limited,
    "s03": fake.fails_once,
    "s04": fake.unavailable,
    "s05": fake.resets,
    "s06": fake.silent,
    "s07": fake.slow_start,
    "s08": fake.cut,
    "s09": fake.stalls,
    "s10": fake.bad_chunk,
    "s11": fake.no_done,
    "s12": fake.context_too_long,
    "s13": fake.filtered,
    "credential": fake.bad_credential,
    "redirect": fake.redirects,
    "early-end": fake.ends_early,
    "early-cut": fake.cut_before_content,
    "error-inside": fake.error_in_stream,
    "overrun": fake.too_many_tokens,
    "endless": fake.trickles_on,
}
# Nobody listens there.
NOBODY = "http://127.0.0.1:9"
# Each test has offers of its own, so that no breaker opened by one is met by another.
SALTS = ("alone-whole", "alone-stream", "backed-whole", "backed-stream")


def catalogue(upstream: FakeUpstream) -> None:
    faulty = add_provider("faulty", upstream.url)
    steady = add_provider("steady", upstream.url)
    for fault, behaviour in FAULTS.items():
        for salt in SALTS:
            name = f"{fault}-{salt}"
            upstream.behaviours[name] = behaviour
            add_offer(provider=faulty, model=name, upstream_model=name)
            if salt.startswith("backed"):
                add_offer(provider=steady, model=name, upstream_model="good", dearer=2)

    add_offer(provider=add_provider("away", NOBODY), model="away", upstream_model="away")


def outcomes(events: list[dict[str, Any]]) -> list[tuple[int, str, int]]:
    return [(e["attempt"], e["outcome"], e.get("tenant_cost_pico", 0)) for e in events]


@pytest.mark.parametrize(
    ("fault", "status", "code", "outcome"),
    [
        ("s01", 429, "upstream_rate_limited", "upstream_error"),
        ("s02", 429, "upstream_rate_limited", "upstream_error"),
        ("s03", 502, "upstream_failed", "upstream_error"),
        ("s04", 503, "upstream_overloaded", "upstream_error"),
        ("s05", 502, None, "upstream_error"),
        ("s12", 400, "context_length_exceeded", "refused"),
        ("s13", 400, "content_filter", "refused"),
        ("credential", 503, "upstream_credential_refused", "upstream_error"),
        ("redirect", 502, "upstream_protocol_error", "upstream_error"),
    ],
)
@pytest.mark.parametrize("shape", ["whole", "stream"])
def test_an_error_before_the_first_byte_is_told_and_costs_nothing(
    the_world: World, fault: str, status: int, code: str | None, outcome: str, shape: str
) -> None:
    # given
    alice = the_world.caller()
    # when
    answer = the_world.chat(alice, f"{fault}-alone-{shape}", stream=shape == "stream")
    # then
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    if code:
        assert answer.json()["error"]["code"] == code
    assert outcomes(the_world.settled(alice)) == [(1, outcome, 0)]
    assert the_world.register(alice) == {"credit": 10**9, "spent": 0, "held": 0}


def test_a_host_that_cannot_be_reached_is_named_in_the_log_and_not_to_the_caller(
    the_world: World,
) -> None:
    # given
    alice = the_world.caller()
    # when
    answer = the_world.chat(alice, "away", headers={"x-tokenhouse-explain": "1"})
    # then
    request_id = answer.headers["x-request-id"]
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "connect_failed")
    said = f"Away: no connection could be made (request {request_id})"
    assert answer.json()["error"]["message"] == said
    assert "127.0.0.1" not in answer.text
    assert outcomes(the_world.settled(alice)) == [(1, "upstream_error", 0)]
    logged = [line for line in the_world.plane.log.read_text().splitlines() if request_id in line]
    assert any("away/away: 127.0.0.1" in line for line in logged)


def test_a_rate_limited_provider_s_retry_after_reaches_the_caller(the_world: World) -> None:
    # given
    alice = the_world.caller()
    # when
    answer = the_world.chat(alice, "s01-alone-whole")
    # then: by the provider's word, or by the breaker that remembers it
    assert answer.status_code in (429, 503)
    if answer.status_code == 429:
        assert answer.headers["retry-after"] == "7"


@pytest.mark.parametrize("fault", ["s01", "s02", "s03", "s04", "s05", "credential", "redirect"])
@pytest.mark.parametrize("shape", ["whole", "stream"])
def test_another_offer_takes_over_before_the_first_byte(
    the_world: World, fault: str, shape: str
) -> None:
    # given
    alice = the_world.caller()
    model = f"{fault}-backed-{shape}"
    # when
    answer = the_world.chat(alice, model, stream=shape == "stream")
    # then
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-tokenhouse-offer"] == f"steady/{model}"
    assert outcomes(the_world.settled(alice, 2)) == [
        (1, "upstream_error", 0),
        (2, "ok", 2 * GOOD_PICO),
    ]


@pytest.mark.parametrize("fault", ["s12", "s13"])
def test_a_request_s_own_fault_is_not_tried_elsewhere(the_world: World, fault: str) -> None:
    # given
    alice = the_world.caller()
    # when
    answer = the_world.chat(alice, f"{fault}-backed-whole")
    # then
    assert answer.status_code == 400
    assert outcomes(the_world.settled(alice)) == [(1, "refused", 0)]


def test_a_silent_provider_is_given_up_and_not_tried_twice(the_world: World) -> None:
    # given
    alice = the_world.caller()
    # when
    answer = the_world.chat(alice, "s06-backed-stream", stream=True)
    # then
    assert shown_text(stream_events(answer.text)) == "".join(TOKENS)
    assert outcomes(the_world.settled(alice, 2)) == [
        (1, "upstream_error", 0),
        (2, "ok", 2 * GOOD_PICO),
    ]
    (seen,) = the_world.upstream.calls("s06-backed-stream")
    eventually(lambda: seen.hung_up)


def test_a_silent_provider_alone_ends_in_a_timeout(the_world: World) -> None:
    # given
    alice = the_world.caller()
    # when
    streamed = the_world.chat(alice, "s06-alone-stream", stream=True)
    whole = the_world.chat(alice, "s06-alone-whole")
    # then
    assert streamed.status_code == 504
    assert whole.status_code == 504
    assert {e["tenant_cost_pico"] for e in with_cost(the_world.settled(alice, 2))} == {0}


def with_cost(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"tenant_cost_pico": 0, **event} for event in events]


def test_a_slow_start_within_the_limit_is_a_success(the_world: World) -> None:
    # given
    alice = the_world.caller()
    # when
    answer = the_world.chat(alice, "s07-alone-stream", stream=True)
    # then
    assert stream_events(answer.text)[-1] == "[DONE]"
    assert outcomes(the_world.settled(alice)) == [(1, "ok", GOOD_PICO)]


@pytest.mark.parametrize("fault", ["s08", "s09", "s10", "early-end", "error-inside"])
def test_a_stream_that_breaks_off_never_looks_complete(the_world: World, fault: str) -> None:
    # given
    alice = the_world.caller()
    # when
    answer = the_world.chat(alice, f"{fault}-alone-stream", stream=True)
    # then
    events = stream_events(answer.text)
    finishes = [
        choice["finish_reason"]
        for event in events
        if isinstance(event, dict)
        for choice in event.get("choices", [])
        if choice.get("finish_reason")
    ]
    assert answer.status_code == 200
    assert finishes == ["error"]
    assert any("error" in event for event in events if isinstance(event, dict))


@pytest.mark.parametrize("fault", ["s08", "s09"])
def test_a_broken_stream_bills_what_was_delivered(the_world: World, fault: str) -> None:
    # given
    alice = the_world.caller()
    # when
    answer = the_world.chat(alice, f"{fault}-alone-stream", stream=True)
    # then: three of five tokens, "The quick brown", and the prompt by estimate
    assert shown_text(stream_events(answer.text)) == "".join(TOKENS[:3])
    (event,) = the_world.settled(alice)
    assert event["outcome"] == "upstream_cut"
    assert event["usage_source"] == "bytes"
    assert event["detail"]["basis"] == ["bytes", "bytes"]
    usage = event["usage"]
    assert usage["output_tokens"] == 3  # 15 bytes in three chunks, as small as tokens are
    assert event["tenant_cost_pico"] == (
        usage["input_tokens"] * INPUT_PICO + usage["output_tokens"] * OUTPUT_PICO
    )
    assert the_world.register(alice)["spent"] == event["charged_nano"] > 0


def test_a_stream_is_not_continued_elsewhere_once_shown(the_world: World) -> None:
    # given
    alice = the_world.caller()
    # when
    the_world.chat(alice, "s08-backed-stream", stream=True)
    # then
    assert [e["attempt"] for e in the_world.settled(alice)] == [1]


def test_a_stream_that_breaks_before_any_content_is_started_anew(the_world: World) -> None:
    # given
    alice = the_world.caller()
    # when
    answer = the_world.chat(alice, "early-cut-backed-stream", stream=True)
    # then
    assert shown_text(stream_events(answer.text)) == "".join(TOKENS)
    assert outcomes(the_world.settled(alice, 2)) == [
        (1, "upstream_error", 0),
        (2, "ok", 2 * GOOD_PICO),
    ]


def test_what_cannot_be_read_is_never_left_out_of_an_answer(the_world: World) -> None:
    # given
    alice = the_world.caller()
    # when: two tokens, then half an event
    answer = the_world.chat(alice, "s10-alone-stream", stream=True)
    # then: the two are billed, and nothing that came after
    assert shown_text(stream_events(answer.text)) == "".join(TOKENS[:2])
    (event,) = the_world.settled(alice)
    assert (event["outcome"], event["usage"]["output_tokens"]) == ("upstream_cut", 2)


@pytest.mark.parametrize("ending", ["reset", "clean"])
def test_a_missing_terminator_after_the_finish_is_a_success(the_world: World, ending: str) -> None:
    # given
    alice = the_world.caller()
    # when
    answer = the_world.chat(alice, "s11-alone-stream", stream=True)
    # then
    assert stream_events(answer.text)[-1] == "[DONE]"
    assert outcomes(the_world.settled(alice)) == [(1, "ok", GOOD_PICO)]


def test_the_deadline_ends_every_request_and_bills_what_was_shown(the_world: World) -> None:
    # given: a stream without end
    alice = the_world.caller()
    # when
    answer = the_world.chat(alice, "endless-alone-stream", stream=True)
    # then
    events = stream_events(answer.text)
    errors = [event["error"] for event in events if isinstance(event, dict) and "error" in event]
    assert [error["code"] for error in errors] == ["deadline_exceeded"]
    (event,) = the_world.settled(alice)
    assert event["outcome"] == "deadline"
    assert event["charged_nano"] == nano(event["tenant_cost_pico"]) > 0
    eventually(lambda: the_world.upstream.calls("endless-alone-stream")[0].hung_up)


def test_the_breaker_opens_and_says_so_in_the_reasons(the_world: World) -> None:
    # given: three failures in a row
    alice = the_world.caller()
    for _ in range(3):
        the_world.chat(alice, "s05-alone-whole")
    # when
    answer = the_world.chat(alice, "s05-alone-whole")
    # then
    assert answer.status_code == 503
    reasons = answer.json()["error"]["metadata"]["reasons"]
    assert [reason["code"] for reason in reasons] == ["breaker_open"]


def test_a_claim_beyond_what_was_asked_is_owed_to_nobody(the_world: World) -> None:
    # given: the provider reports 100,000 tokens where 50 were asked for, and shows one word
    alice = the_world.caller()
    # when
    answer = the_world.chat(alice, "overrun-alone-stream", stream=True)
    # then: the tenant pays the estimate, and hears no other sum
    (event,) = the_world.settled(alice)
    usage = event["usage"]
    assert usage["output_tokens"] == 1
    assert event["tenant_cost_pico"] == (
        usage["input_tokens"] * INPUT_PICO + usage["output_tokens"] * OUTPUT_PICO
    )
    assert event.get("supplier_cost_pico", 0) == 0
    assert event["claimed"] == {"input_tokens": 10, "output_tokens": 100_000}
    assert event["problem"] == "claims 100,000 output tokens; 50 were asked for"
    said = [e for e in stream_events(answer.text) if isinstance(e, dict)]
    (told,) = [e["usage"] for e in said if e.get("usage")]
    assert Decimal(str(told["cost"])) == Decimal(event["tenant_cost_pico"]) / 10**12
    register = the_world.register(alice)
    assert register["spent"] == event["charged_nano"] == nano(event["tenant_cost_pico"])
