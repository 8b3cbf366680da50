"""A good answer, whole and streamed: what the client sees, and what is booked for it."""

import json
from decimal import Decimal

import httpx
import pytest

from billing.holding import holds
from billing.models import Quota
from providers.models import Provider
from tests.fakes import upstream as fake
from tests.fakes.upstream import INPUT_TOKENS, TOKENS, FakeUpstream
from tests.gateway.world import (
    World,
    add_offer,
    add_provider,
    cost_pico,
    nano,
    question,
    shown_text,
    stream_events,
)
from tests.patience import PATIENCE_S

COST_PICO = cost_pico(INPUT_TOKENS, 4, len(TOKENS))
COST_USD = "0.000054"


def catalogue(upstream: FakeUpstream) -> None:
    pool = add_provider("pool", upstream.url)
    add_offer(provider=pool, model="fox", upstream_model="good")
    add_offer(provider=pool, model="hare", upstream_model="good")
    add_offer(provider=pool, model="lynx", upstream_model="other-tier")
    upstream.behaviours["other-tier"] = fake.other_tier
    outside = add_provider("outside", upstream.url, kind=Provider.Kind.EXTERNAL)
    add_offer(provider=outside, model="far", upstream_model="good")


def test_a_whole_answer_carries_its_exact_cost(the_world: World) -> None:
    # given
    alice = the_world.caller()
    # when
    answer = the_world.chat(alice, "fox")
    # then
    body = answer.json()
    assert answer.status_code == 200, answer.text
    assert body["choices"][0]["message"]["content"] == "".join(TOKENS)
    assert body["usage"]["prompt_tokens"] == INPUT_TOKENS
    assert body["usage"]["completion_tokens"] == len(TOKENS)
    assert body["usage"]["prompt_tokens_details"]["cached_tokens"] == 4
    assert json.loads(answer.content, parse_float=Decimal)["usage"]["cost"] == Decimal(COST_USD)
    assert answer.headers["x-tokenhouse-cost"] == COST_USD
    assert answer.headers["x-tokenhouse-offer"] == "pool/fox"


def test_an_answer_of_a_tier_without_a_price_keeps_its_hold_for_a_person(
    the_world: World,
) -> None:
    # given
    alice = the_world.caller()
    # when
    answer = the_world.chat(alice, "lynx", stream=True)
    # then
    assert shown_text(stream_events(answer.text)) == "".join(TOKENS)
    (event,) = the_world.settled(alice)
    assert (event["outcome"], event.get("price"), event["service_tier"]) == ("ok", None, 2)
    assert event["detail"]["served_tier"] == "priority"
    assert event["detail"]["output_bytes"] == len("".join(TOKENS))
    (_, _, greatest_pico) = event["detail"]["ranking"]["taken"][0]
    register = the_world.register(alice)
    assert event["charged_nano"] == nano(greatest_pico) > nano(COST_PICO)
    assert register["spent"] == event["charged_nano"]
    assert register["held"] == 0


def test_a_whole_answer_is_booked_once(the_world: World) -> None:
    # given
    alice = the_world.caller()
    # when
    answer = the_world.chat(alice, "fox")
    # then
    (event,) = the_world.settled(alice)
    assert event["request_id"] == answer.headers["x-request-id"]
    assert event["outcome"] == "ok"
    assert event["usage_source"] == "provider"
    assert event["tenant_cost_pico"] == COST_PICO
    assert event["charged_nano"] == nano(COST_PICO)
    assert event["detail"]["ranking"]["taken"][0][0] == "pool/fox"
    register = the_world.register(alice)
    assert register == {"credit": 10**9, "spent": nano(COST_PICO), "held": 0}


def test_a_stream_shows_every_token_and_ends_with_usage_and_cost(the_world: World) -> None:
    # given
    alice = the_world.caller()
    # when
    answer = the_world.chat(alice, "fox", stream=True)
    # then
    events = stream_events(answer.text)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert shown_text(events) == "".join(TOKENS)
    assert events[-1] == "[DONE]"
    with_usage = [e for e in events if isinstance(e, dict) and e.get("usage")]
    assert len(with_usage) == 1
    assert with_usage[0]["usage"]["cost"] == float(COST_USD)
    assert the_world.settled(alice)[0]["tenant_cost_pico"] == COST_PICO


def test_it_is_settled_before_the_client_hears_the_cost(the_world: World) -> None:
    # given
    alice = the_world.caller()
    # when
    the_world.chat(alice, "fox")
    # then: no waiting
    assert the_world.register(alice)["spent"] == nano(COST_PICO)
    assert the_world.register(alice)["held"] == 0


def test_the_first_token_does_not_wait_for_the_last(the_world: World) -> None:
    # given
    the_world.upstream.behaviours["good"] = the_world.upstream.after_first_token
    alice = the_world.caller()
    # when
    try:
        with httpx.stream(
            "POST",
            f"{the_world.plane.url}/v1/chat/completions",
            headers=alice.headers,
            json=question("fox", stream=True),
            timeout=PATIENCE_S,
        ) as answer:
            parts = answer.iter_text()
            first = next(parts)
            # then: the provider waits for us before it says more
            assert TOKENS[0] in first
            the_world.upstream.gate.set()
            rest = "".join(parts)
    finally:
        del the_world.upstream.behaviours["good"]
        the_world.upstream.gate.clear()
    assert "[DONE]" in rest


def test_the_same_key_works_in_the_anthropic_dialect(the_world: World) -> None:
    # given
    alice = the_world.caller()
    # when
    answer = httpx.post(
        f"{the_world.plane.url}/v1/messages",
        headers={"x-api-key": alice.plain, "anthropic-version": "2023-06-01"},
        json={
            "model": "fox",
            "max_tokens": 50,
            "messages": [{"role": "user", "content": "What does the fox do?"}],
        },
        timeout=PATIENCE_S,
    )
    # then
    body = answer.json()
    assert answer.status_code == 200, answer.text
    assert body["content"] == [{"type": "text", "text": "".join(TOKENS)}]
    assert body["usage"]["input_tokens"] == INPUT_TOKENS - 4
    assert body["usage"]["cache_read_input_tokens"] == 4
    assert the_world.settled(alice)[0]["tenant_cost_pico"] == COST_PICO


def test_the_answer_explains_the_choice_when_asked(the_world: World) -> None:
    # given
    alice = the_world.caller()
    # when
    answer = the_world.chat(alice, "fox", headers={"x-tokenhouse-explain": "1"})
    # then
    explanation = answer.json()["tokenhouse"]["explanation"]
    assert explanation["policy"] == "cheapest"
    assert explanation["attempts"] == [{"offer": "pool/fox", "outcome": "ok"}]


def test_max_tokens_goes_upstream_also_where_the_caller_named_none(the_world: World) -> None:
    # given
    alice = the_world.caller(max_output_tokens=77)
    # when
    the_world.chat(alice, "hare", max_tokens=None)
    # then
    sent = the_world.upstream.calls("good")[-1].body
    assert sent.get("max_tokens") or sent.get("max_completion_tokens") == 77


def test_the_caller_s_key_never_goes_upstream(the_world: World) -> None:
    # given
    alice = the_world.caller()
    # when
    the_world.chat(alice, "fox")
    # then
    seen = the_world.upstream.calls("good")[-1]
    assert alice.plain not in json.dumps(seen.headers)


@pytest.mark.parametrize("stream", [False, True])
def test_connections_to_the_provider_are_kept(the_world: World, stream: bool) -> None:
    # given
    alice = the_world.caller()
    the_world.chat(alice, "fox", stream=stream)
    before = the_world.upstream.connections
    # when
    for _ in range(5):
        the_world.chat(alice, "fox", stream=stream)
    # then
    assert the_world.upstream.connections == before


def test_a_provider_on_a_private_address_is_not_called(the_world: World) -> None:
    # given: an external provider whose base URL is plain http on loopback
    alice = the_world.caller()
    # when
    answer = the_world.chat(alice, "far")
    # then
    assert answer.status_code == 404
    assert the_world.register(alice) == {"credit": 10**9, "spent": 0, "held": 0}


def test_models_are_listed_for_every_client(the_world: World) -> None:
    # given
    alice = the_world.caller()
    # when
    answer = httpx.get(
        f"{the_world.plane.url}/v1/models", headers=alice.headers, timeout=PATIENCE_S
    )
    # then
    rows = {row["id"]: row for row in answer.json()["data"]}
    assert rows["fox"]["pricing"] == {
        "prompt": "0.000002",
        "completion": "0.000008",
        "input_cache_read": "0.0000005",
    }
    assert "far" not in rows


def test_a_key_can_ask_for_its_own_state(the_world: World) -> None:
    # given
    alice = the_world.caller()
    Quota.objects.create(
        tenant=alice.tenant,
        scope_kind="key",
        scope_id=alice.key.pk,
        window="lifetime",
        limit_pico=10**11,
    )
    the_world.chat(alice, "fox")
    # when
    answer = httpx.get(f"{the_world.plane.url}/v1/key", headers=alice.headers, timeout=PATIENCE_S)
    # then
    data = json.loads(answer.content, parse_float=Decimal)["data"]
    assert (data["label"], data["usage"]) == (alice.key.name, Decimal(COST_USD))
    assert (data["limit"], data["limit_remaining"]) == (Decimal("0.1"), Decimal("0.099946"))
    assert data["credit"]["left"] == 1 - Decimal(COST_USD)


@pytest.mark.parametrize("path", ["/v1/key", "/v1/models", "/v1/models/fox"])
def test_a_revoked_key_reads_nothing_more_at_once(path: str, the_world: World) -> None:
    # given a process that knows the key
    alice = the_world.caller()
    assert (
        httpx.get(
            f"{the_world.plane.url}{path}", headers=alice.headers, timeout=PATIENCE_S
        ).status_code
        == 200
    )

    # when it is revoked, and no snapshot was made since
    holds.set_key_status(the_world.redis, alice.tenant.pk, alice.key.pk, holds.REVOKED)

    # then
    answer = httpx.get(f"{the_world.plane.url}{path}", headers=alice.headers, timeout=PATIENCE_S)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "revoked_api_key")


def test_health_and_readiness_need_no_key(the_world: World) -> None:
    assert httpx.get(f"{the_world.plane.url}/health", timeout=PATIENCE_S).status_code == 200
    assert httpx.get(f"{the_world.plane.url}/ready", timeout=PATIENCE_S).json()["ready"] is True
