"""A refusal that will not pass by itself costs its caller one call, and one that will says when."""

import socket
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest

from gateway.models import ApiKey, RoutingPolicy
from providers.models import Offer, Provider
from tests.fakes import upstream as fake
from tests.fakes.upstream import FakeUpstream
from tests.gateway.world import Caller, World, add_offer, add_provider, question
from tests.patience import PATIENCE_S, ran_s

OPENAI, ANTHROPIC = "/v1/chat/completions", "/v1/messages"
UNTOUCHED = {"credit": 10**9, "spent": 0, "held": 0}
AWAY_S = 10


def catalogue(upstream: FakeUpstream) -> None:
    upstream.behaviours.update(
        {"unavailable": fake.unavailable, "bad-credential": fake.bad_credential}
    )
    pool = add_provider("pool", upstream.url)
    add_offer(provider=pool, model="fox-good", upstream_model="good")
    add_offer(provider=pool, model="fox-other", upstream_model="good")
    for name in ("down", "keyless", "shut", "gone"):
        seller = add_provider(f"pool-{name}", upstream.url)
        behaviour = {"down": "unavailable", "shut": "bad-credential"}.get(name, "good")
        add_offer(provider=seller, model=f"fox-{name}", upstream_model=behaviour)
    other = add_provider("other-wire", upstream.url)
    Provider.objects.filter(pk=other.pk).update(wire=Provider.Wire.ANTHROPIC)
    add_offer(provider=other, model="fox-both", upstream_model="good")
    add_offer(provider=pool, model="fox-both", upstream_model="good", dearer=2)
    Provider.objects.filter(slug="pool-keyless").update(kind=Provider.Kind.EXTERNAL)
    Offer.objects.filter(model__slug="fox-gone").update(
        state=Offer.State.REMOVED, state_reason="two checks failed"
    )


def ask(world: World, caller: Caller, model: str, path: str = OPENAI) -> httpx.Response:
    url = f"{world.plane.url}{path}"
    return httpx.post(url, json=question(model), headers=caller.headers, timeout=PATIENCE_S)


def told(answer: httpx.Response) -> tuple[int, str, str | None]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], answer.headers.get("x-should-retry")


@pytest.mark.parametrize("path", [OPENAI, ANTHROPIC])
def test_a_seller_without_credential_is_404_with_the_reason(the_world: World, path: str) -> None:
    alice = the_world.caller()
    before = len(the_world.upstream.seen)

    answer = ask(the_world, alice, "fox-keyless", path)

    assert told(answer) == (404, "model_not_found", "false")
    error = answer.json()["error"]
    assert error["message"] == (
        "Nobody here sells `fox-keyless` to this request: pool-keyless/fox-keyless: no credential."
    )
    assert error["metadata"]["reasons"][0]["reason"] == "no credential"
    assert the_world.register(alice) == UNTOUCHED
    assert len(the_world.upstream.seen) == before


def test_what_the_policy_forbids_is_403_and_never_suggested(the_world: World) -> None:
    # given a tenant that may call one seller only, and a key of one model
    alice, bob = the_world.caller(), the_world.caller()
    RoutingPolicy.objects.create(tenant=alice.tenant, providers_allowed=["pool-down"])
    ApiKey.objects.filter(pk=bob.key.pk).update(models_allowed=["fox-other"])

    # when / then
    assert told(ask(the_world, alice, "fox-good")) == (403, "offer_not_allowed", "false")
    assert told(ask(the_world, bob, "fox-good")) == (403, "model_not_allowed", "false")
    unknown = ask(the_world, bob, "fox-goood")
    assert told(unknown) == (404, "model_not_found", "false")
    assert unknown.json()["error"]["metadata"]["nearest"] == ["fox-other"]
    carol = ask(the_world, the_world.caller(), "fox-keyles")
    assert "fox-keyless" not in carol.json()["error"]["message"]
    listed = httpx.get(
        f"{the_world.plane.url}/v1/models", headers=alice.headers, timeout=PATIENCE_S
    ).json()["data"]
    assert [row["id"] for row in listed] == ["fox-down"]


@pytest.mark.parametrize("path", [OPENAI, ANTHROPIC])
def test_an_offer_that_rests_is_503_until_it_is_tried_again(the_world: World, path: str) -> None:
    # given three failures, which open the breaker
    alice = the_world.caller()
    for _ in range(3):
        failed = ask(the_world, alice, "fox-down", path)
        assert failed.status_code == 503
    # the last of them knows of the rest already
    assert 1 <= int(failed.headers["retry-after"]) <= AWAY_S

    answer = ask(the_world, alice, "fox-down", path)

    assert told(answer) == (503, "no_eligible_offer", None)
    (reason,) = answer.json()["error"]["metadata"]["reasons"]
    said = int(answer.headers["retry-after"])
    assert f"closed to requests for another {said} s" in reason["reason"]
    assert the_world.register(alice) == UNTOUCHED


def test_an_offer_that_its_checks_removed_is_503_until_the_next_one(the_world: World) -> None:
    answer = ask(the_world, the_world.caller(), "fox-gone")

    assert told(answer) == (503, "no_eligible_offer", None)
    assert answer.headers["retry-after"] == "10"
    assert "two checks failed" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", [OPENAI, ANTHROPIC])
def test_a_refused_credential_of_the_house_is_not_worth_another_call(
    the_world: World, path: str
) -> None:
    # given a seller that refuses our credential, which nobody mends within a call
    alice = the_world.caller()

    for _ in range(2):
        answer = ask(the_world, alice, "fox-shut", path)
        assert answer.status_code == 503
        assert answer.headers["x-should-retry"] == "false"
        assert int(answer.headers["retry-after"]) > 60
        # Claude Code repeats an overload whatever it is told beside it.
        assert answer.json()["error"]["type"] == "api_error"


@pytest.mark.parametrize("path", ["/v1/responses", OPENAI, "/v1/realtime", "/"])
def test_a_websocket_is_refused_with_426_so_that_clients_post(the_world: World, path: str) -> None:
    with socket.create_connection(
        ("127.0.0.1", the_world.plane.port), timeout=PATIENCE_S
    ) as client:
        client.sendall(
            f"GET {path} HTTP/1.1\r\nhost: t\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
            "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "sec-websocket-version: 13\r\n\r\n".encode()
        )
        answer = client.recv(4096).lower()

    assert answer.startswith(b"http/1.1 426 "), answer
    assert b"x-should-retry: false" in answer


@pytest.mark.parametrize("model", ["fox-good", "no-such-fox", "fox-keyless"])
def test_sdks_hear_a_refusal_by_one_call_within_two_seconds(the_world: World, model: str) -> None:
    # given the SDKs as they come, repeats included, and a wrong key where the model is right
    alice = the_world.caller()
    key = "tk-nobody-knows-this" if model == "fox-good" else alice.plain
    seen: list[object] = []
    http = httpx.Client(event_hooks={"request": [seen.append]}, timeout=PATIENCE_S)
    http2 = httpx2.Client(event_hooks={"request": [seen.append]})
    url = the_world.plane.url
    messages: Any = question(model)["messages"]

    # when
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key=key, http_client=http) as client,
        anthropic.Anthropic(base_url=url, api_key=key, http_client=http2) as other,
    ):
        began = ran_s()
        with pytest.raises((openai.AuthenticationError, openai.NotFoundError)):
            client.chat.completions.create(model=model, messages=messages)
        with pytest.raises((anthropic.AuthenticationError, anthropic.NotFoundError)):
            other.messages.create(model=model, messages=messages, max_tokens=5)
        took_s = ran_s() - began

    # then
    assert took_s < 2
    assert len(seen) == 2


def test_what_one_seller_s_api_cannot_say_the_next_one_is_asked(the_world: World) -> None:
    # given a picture that only the dearer seller's API has words for, as is seen when it is put
    alice = the_world.caller()
    part = {"type": "image_url", "image_url": {"url": "data:image/svg+xml,<svg/>"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, part]}]

    answer = the_world.chat(alice, "fox-both", messages=messages)

    assert answer.status_code == 200, answer.text
    assert answer.headers["x-tokenhouse-offer"] == "pool/fox-both"
    only = {"only": ["other-wire"]}
    refused = the_world.chat(alice, "fox-both", messages=messages, provider=only)
    assert told(refused) == (400, "unsupported_by_model", "false")
    paid = [event["sku"] for event in the_world.settled(alice, 3) if event.get("tenant_cost_pico")]
    assert paid == ["pool/fox-both"]


def test_what_only_tunes_and_has_no_words_is_told(the_world: World) -> None:
    alice = the_world.caller()
    body = {**question("fox-good"), "top_k": 3, "thinking": {"type": "adaptive"}}

    headers = {**alice.headers, "x-tokenhouse-explain": "1"}
    answer = httpx.post(
        f"{the_world.plane.url}{ANTHROPIC}", json=body, headers=headers, timeout=PATIENCE_S
    )

    assert answer.status_code == 200
    assert answer.headers["x-tokenhouse-left-out"] == "thinking, top_k"
    [attempt] = answer.json()["tokenhouse"]["explanation"]["attempts"]
    assert attempt["left_out"] == ["thinking", "top_k"]
