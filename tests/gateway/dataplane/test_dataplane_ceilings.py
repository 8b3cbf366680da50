"""What a caller lets a request or a session cost: parsed exactly, enforced before and midway."""

import json
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import httpx
import pytest

from billing import registers
from billing.models import CallProfile, Quota, RateLimit
from tests.fakes.upstream import INPUT_TOKENS, TOKENS, FakeUpstream, trickles
from tests.gateway.world import (
    INPUT_PICO,
    OUTPUT_PICO,
    Caller,
    World,
    add_offer,
    add_provider,
    cost_pico,
    eventually,
    question,
    shown_text,
    stream_events,
)
from tests.patience import PATIENCE_S

COST_PICO = cost_pico(INPUT_TOKENS, 4, len(TOKENS))
COST_USD = "0.000054"
USD = 10**12


def catalogue(upstream: FakeUpstream) -> None:
    upstream.behaviours["deaf"] = trickles  # it never heard of max_tokens
    upstream.behaviours["gated"] = upstream.gated
    pool, dear = add_provider("pool", upstream.url), add_provider("dear", upstream.url)
    for model in ("fox", "deaf", "gated"):
        add_offer(provider=pool, model=model, upstream_model="good" if model == "fox" else model)
    add_offer(provider=dear, model="fox", upstream_model="good", dearer=2)


def worst_pico(world: World, caller: Caller, model: str = "fox", **more: Any) -> int:
    """What one request holds, as the refusal of an empty purse names it."""
    poor = world.caller(credit_nano=0)
    answer = world.chat(poor, model, provider={"only": ["pool"]}, **more)
    needed = answer.json()["error"]["metadata"]["needed_usd"]
    return int(Decimal(needed) * USD)


def usd(pico: int) -> str:
    return format(Decimal(pico).scaleb(-12), "f")


def test_the_answer_is_cut_so_that_its_most_is_within_the_ceiling(the_world: World) -> None:
    # given a ceiling that leaves room for 7 of the 50 tokens asked for
    alice = the_world.caller()
    ceiling = worst_pico(the_world, alice) - 43 * OUTPUT_PICO
    # when
    answer = the_world.chat(alice, "fox", max_cost=usd(ceiling), provider={"only": ["pool"]})
    # then
    assert answer.status_code == 200, answer.text
    assert the_world.upstream.seen[-1].body["max_tokens"] == 7
    assert "max_cost" not in the_world.upstream.seen[-1].body


def test_header_and_body_agree_on_the_lower_one(the_world: World) -> None:
    alice = the_world.caller()
    ceiling = worst_pico(the_world, alice) - 43 * OUTPUT_PICO
    for body, header in ((1, usd(ceiling)), (float(usd(ceiling)), "1")):
        the_world.chat(
            alice, "fox", max_cost=body, provider={"only": ["pool"]}, headers={"x-max-cost": header}
        )
        assert the_world.upstream.seen[-1].body["max_tokens"] in (6, 7)


def test_a_prompt_that_may_cost_more_by_itself_is_402_naming_the_numbers(the_world: World) -> None:
    # given
    alice = the_world.caller()
    calls = len(the_world.upstream.seen)
    # when
    answer = the_world.chat(alice, "fox", max_cost="0.000001")
    # then
    error = answer.json()["error"]
    assert answer.status_code == 402
    assert error["code"] == "over_max_cost"
    assert "max_cost of $0.000001" in error["message"]
    assert len(error["metadata"]["offers"]) == 2
    assert len(the_world.upstream.seen) == calls
    assert the_world.register(alice)["held"] == 0


@pytest.mark.parametrize(
    "ceiling",
    ["-1", "NaN", "Infinity", "1e400", "1E99", "٠.٥", "0x1", "", "1_0", "1,5", "+1", ".5",
     "1e-13", "10000000"],
)  # fmt: skip
def test_a_ceiling_that_is_no_amount_is_400(the_world: World, ceiling: str) -> None:
    alice = the_world.caller()
    answers = [the_world.chat(alice, "fox", max_cost=ceiling)]
    if ceiling.isascii():
        answers.append(the_world.chat(alice, "fox", headers={"x-max-cost": ceiling}))
        answers.append(the_world.chat(alice, "fox", headers={"x-session-max-cost": ceiling}))
    for answer in answers:
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["code"] == "invalid_value"


@pytest.mark.parametrize("raw", [b"-1", b"1e400", b"true", b"[]", b"{}", b"1e-13"])
def test_a_ceiling_of_another_kind_of_json_is_400(the_world: World, raw: bytes) -> None:
    alice = the_world.caller()
    body = json.dumps(question("fox"))[:-1].encode() + b', "max_cost": ' + raw + b"}"
    url = f"{the_world.plane.url}/v1/chat/completions"
    answer = httpx.post(url, content=body, headers=alice.headers, timeout=PATIENCE_S)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == "max_cost"


def cut_stream(world: World, caller: Caller) -> tuple[httpx.Response, int]:
    """A stream of a provider that ignores its limit of 20 tokens."""
    ceiling = worst_pico(world, caller, "deaf") - 30 * OUTPUT_PICO
    answer = world.chat(caller, "deaf", stream=True, max_cost=usd(ceiling))
    return answer, ceiling


def test_a_provider_that_goes_on_is_stopped_and_what_was_shown_is_settled(
    the_world: World,
) -> None:
    # given / when
    alice = the_world.caller()
    answer, ceiling = cut_stream(the_world, alice)
    # then
    *_, finish, usage, done = stream_events(answer.text)
    assert done == "[DONE]"
    assert finish["choices"] == [
        {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "length"}
    ]
    assert usage["tokenhouse"] == {"stopped_by": "max_cost"}
    assert usage["usage"]["completion_tokens"] == 20
    assert len(shown_text(stream_events(answer.text)).split()) <= 24
    (event,) = the_world.settled(alice)
    assert event["outcome"] == "stopped"
    assert 0 < event["tenant_cost_pico"] <= ceiling
    assert the_world.register(alice)["spent"] * 1000 <= ceiling
    eventually(lambda: the_world.upstream.calls("deaf")[-1].hung_up)


def test_an_anthropic_stream_that_is_stopped_says_so_in_its_last_delta(the_world: World) -> None:
    # given
    alice = the_world.caller()
    ceiling = worst_pico(the_world, alice, "deaf") - 30 * OUTPUT_PICO
    body = {
        "model": "deaf", "max_tokens": 50, "stream": True, "max_cost": usd(ceiling),
        "messages": [{"role": "user", "content": "What does the fox do?"}],
    }  # fmt: skip
    # when
    url = f"{the_world.plane.url}/v1/messages"
    answer = httpx.post(url, json=body, headers=alice.headers, timeout=PATIENCE_S)
    # then
    events = stream_events(answer.text)
    kinds = [event["type"] for event in events]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert events[-2]["delta"]["stop_reason"] == "max_tokens"
    assert events[-2]["tokenhouse"] == {"stopped_by": "max_cost"}


def test_a_session_s_total_is_in_every_answer(the_world: World) -> None:
    # given
    alice = the_world.caller()
    headers = {"x-session-id": "agent-7"}
    # when
    first = the_world.chat(alice, "fox", headers=headers)
    streamed = the_world.chat(alice, "fox", stream=True, headers=headers)
    third = the_world.chat(alice, "fox", session_id="agent-7")
    other = the_world.chat(alice, "fox", headers={"x-session-id": "agent-8"})
    # then
    assert first.headers["x-session-cost"] == COST_USD
    assert streamed.headers["x-session-cost"] == COST_USD
    *_, usage, _ = stream_events(streamed.text)
    assert Decimal(str(usage["usage"]["session_cost"])) == 2 * Decimal(COST_USD)
    assert third.headers["x-session-cost"] == "0.000162"
    assert other.headers["x-session-cost"] == COST_USD
    events = the_world.settled(alice, 4)
    name = registers.session_of(alice.tenant.pk, "agent-7")
    assert [event["session"] == name for event in events] == [True, True, True, False]
    assert "agent-7" not in json.dumps(events)


def test_without_a_session_nothing_is_told_of_one(the_world: World) -> None:
    alice = the_world.caller()
    answer = the_world.chat(alice, "fox")
    assert "x-session-cost" not in answer.headers
    assert "session_cost" not in answer.json()["usage"]


def test_what_a_session_has_left_cuts_its_last_answer_and_then_refuses(the_world: World) -> None:
    # given a session that may cost one whole request and seven tokens
    alice = the_world.caller()
    worst = worst_pico(the_world, alice)
    input_pico = worst - 50 * OUTPUT_PICO
    headers = {
        "x-session-id": "agent",
        "x-session-max-cost": usd(COST_PICO + input_pico + 7 * OUTPUT_PICO),
    }
    asked: dict[str, Any] = {"provider": {"only": ["pool"]}, "headers": headers}
    # when
    whole, cut = (the_world.chat(alice, "fox", **asked) for _ in range(2))
    refused = the_world.chat(alice, "fox", **asked)
    # then
    assert [whole.status_code, cut.status_code] == [200, 200]
    assert the_world.upstream.seen[-1].body["max_tokens"] == 7
    error = refused.json()["error"]
    assert refused.status_code == 402
    assert error["metadata"]["scope"] == "session"
    assert "this session" in error["message"]


@pytest.mark.parametrize("session", ["x" * 129, "é" * 65, "a\x00b", "a\nb"])
def test_a_session_id_that_is_too_long_or_holds_controls_is_400(
    the_world: World, session: str
) -> None:
    alice = the_world.caller()
    answer = the_world.chat(alice, "fox", session_id=session)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_session_id"
    assert the_world.chat(alice, "fox", session_id="x" * 128).status_code == 200


def test_no_caller_raises_its_sessions_above_what_the_tenant_allows(the_world: World) -> None:
    # given
    alice = the_world.caller()
    Quota.objects.create(
        tenant=alice.tenant, scope_kind="session", scope_id=str(alice.tenant.pk),
        window="session", limit_pico=1_000_000,
    )  # fmt: skip
    # when
    answer = the_world.chat(
        alice, "fox", headers={"x-session-id": "agent", "x-session-max-cost": "100"}
    )
    # then
    error = answer.json()["error"]
    assert answer.status_code == 402
    assert (error["metadata"]["scope"], error["metadata"]["limit_usd"]) == ("session", "0.000001")


def test_a_provider_s_used_up_budget_leaves_the_others(the_world: World) -> None:
    # given
    alice = the_world.caller()
    Quota.objects.create(
        tenant=alice.tenant, scope_kind="provider", scope_id="pool", window="month", limit_pico=1
    )
    # when
    elsewhere = the_world.chat(alice, "fox")
    nowhere = the_world.chat(alice, "deaf")
    # then
    assert elsewhere.headers["x-tokenhouse-offer"] == "dear/fox"
    assert nowhere.status_code == 402
    assert nowhere.json()["error"]["metadata"]["scope"] == "provider"
    assert nowhere.json()["error"]["metadata"]["scope_id"] == "pool"


def test_a_provider_s_budget_counts_its_own_spending_alone(the_world: World) -> None:
    # given: both offers of the model are held for, one of them serves
    alice = the_world.caller()
    for provider in ("pool", "dear"):
        Quota.objects.create(
            tenant=alice.tenant, scope_kind="provider", scope_id=provider, window="day",
            limit_pico=10**12,
        )  # fmt: skip
    # when
    the_world.chat(alice, "fox")
    the_world.settled(alice)
    # then
    pattern = f"spend:*:{alice.tenant.pk}:provider:"
    keys = the_world.redis.keys(f"{pattern}*")
    spent = {key.decode().split(":")[4]: the_world.redis.hget(key, "spent") for key in keys}
    assert spent == {"pool": b"54000", "dear": b"0"}


def test_a_watching_budget_serves_and_notes(the_world: World) -> None:
    # given
    alice = the_world.caller()
    Quota.objects.create(
        tenant=alice.tenant, scope_kind="model", scope_id="fox", window="week", limit_pico=1,
        shadow=True,
    )  # fmt: skip
    # when
    answer = the_world.chat(alice, "fox")
    # then
    assert answer.status_code == 200
    request_id = answer.headers["x-request-id"]
    notes = [json.loads(entry[b"r"]) for _, entry in the_world.redis.xrange("refusals")]
    (note,) = [note for note in notes if note["request_id"] == request_id]
    assert note["code"] == "would_refuse"
    assert note["detail"]["caps"] == [{"scope": "model", "scope_id": "fox", "window": "week"}]


def test_an_expected_hold_is_the_p99_of_the_key_s_past(the_world: World) -> None:
    # given
    alice = the_world.caller(hold_mode="expected", overdraft_pico=10**12)
    CallProfile.objects.create(
        tenant=alice.tenant, api_key_id=alice.key.pk, model="gated", calls=500,
        output_mean=3, output_p95=4, output_p99=5, input_mean=100, input_p95=200, input_p99=250,
        refreshed_at="2026-01-01T00:00:00Z",
    )  # fmt: skip
    input_bound = (worst_pico(the_world, alice) - 50 * OUTPUT_PICO) // INPUT_PICO
    the_world.upstream.gate.clear()
    # when
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(the_world.chat, alice, "gated")
        eventually(lambda: bool(the_world.register(alice)["held"]))
        held = the_world.register(alice)["held"]
        the_world.upstream.gate.set()
        answer = asked.result()
    # then
    assert held * 1000 == -(-input_bound // 4) * INPUT_PICO + 5 * OUTPUT_PICO
    assert answer.status_code == 200
    the_world.settled(alice)
    assert the_world.register(alice)["spent"] == 54_000


def test_a_cap_that_bites_is_told_in_a_header_and_in_the_explanation(the_world: World) -> None:
    # given a tenant that caps answers at 40 of the 50 tokens asked for
    alice = the_world.caller(max_output_tokens=40)
    explain = {"x-tokenhouse-explain": "1"}
    for stream in (False, True):
        # when
        answer = the_world.chat(alice, "fox", stream=stream, headers=explain)
        # then
        assert answer.headers["x-tokenhouse-max-tokens"] == "40; by=tenant"
        assert the_world.upstream.seen[-1].body["max_tokens"] == 40
    first = the_world.chat(alice, "fox", headers=explain).json()["tokenhouse"]["explanation"]
    said = first["candidates"][0]
    assert (said["max_tokens"], said["max_tokens_by"]) == (40, "tenant")


def test_without_a_cap_of_the_tenant_the_limit_asked_for_goes_upstream(the_world: World) -> None:
    alice = the_world.caller()

    answer = the_world.chat(alice, "fox", max_tokens=6_000)
    capped = the_world.chat(alice, "fox", max_tokens=32_000)

    assert "x-tokenhouse-max-tokens" not in answer.headers
    assert the_world.upstream.seen[-2].body["max_tokens"] == 6_000
    # a context of 8,192 is all that is known of the model
    assert capped.headers["x-tokenhouse-max-tokens"] == "8192; by=context"


def test_who_names_no_limit_gets_what_the_budget_has_left_and_is_told(the_world: World) -> None:
    # given credit for the prompt and 1,000 tokens, of 8,000 that the model could write
    question_pico = worst_pico(the_world, the_world.caller()) - 50 * OUTPUT_PICO
    alice = the_world.caller(credit_nano=(question_pico + 1_000 * OUTPUT_PICO) // 1_000)
    # when
    answer = the_world.chat(alice, "fox", max_tokens=None, provider={"only": ["pool"]})
    # then
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-tokenhouse-max-tokens"] == "1000; by=budget"
    assert the_world.upstream.seen[-1].body["max_tokens"] == 1_000
    # and where hardly anything is left, or a length was asked for, it is refused as before
    named = the_world.chat(alice, "fox", max_tokens=2_000)
    bob = the_world.caller(credit_nano=(question_pico + 200 * OUTPUT_PICO) // 1_000)
    scarce = the_world.chat(bob, "fox", max_tokens=None)
    assert (named.status_code, scarce.status_code) == (402, 402)
    assert the_world.register(bob)["held"] == the_world.register(bob)["spent"] == 0


def test_who_names_no_limit_fits_into_the_tokens_of_a_minute(the_world: World) -> None:
    alice = the_world.caller()
    RateLimit.objects.create(
        tenant=alice.tenant, scope_kind="key", scope_id=alice.key.pk, tpm=2_000
    )

    answer = the_world.chat(alice, "fox", max_tokens=None)

    # 64 + 51 + 16 tokens of prompt
    assert answer.headers["x-tokenhouse-max-tokens"] == "1869; by=rate_limit"
