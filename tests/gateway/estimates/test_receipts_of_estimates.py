"""What a tenant is told of a charge that rests on an estimate, and of a sum that is held."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.test import Client

from billing.models import UsageEvent
from gateway.console.figures import usd_exact
from tests.gateway.console_rows import offer, request_id_at, served
from tests.gateway.pages import said
from tests.people import Person

NOW = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)
REASON = "negative input_tokens"


@pytest.fixture
def alice_client(alice: Person, client: Client) -> Client:
    client.force_login(alice.user)
    return client


def held(alice: Person) -> UsageEvent:
    """An event as the drain writes one that it quarantines: 1,600,000 nano-dollars are debited."""
    event = served(alice.tenant, offer(), at=NOW, billable=False, post=False)
    event.pk, event._state.adding = None, True
    event.request_id = request_id_at(NOW)
    event.state, event.quarantine_reason = UsageEvent.State.QUARANTINED, REASON
    event.usage_source, event.charged_nano, event.supplier_cost_pico = "none", 1_600_000, 0
    event.detail["estimate"] = {
        "input_tokens": 12,
        "output_tokens": 4,
        "basis": "bytes",
        "tenant_pico": 56_000_000,
    }
    event.save()
    return event


def attempt_of(client: Client, alice: Person, event: UsageEvent) -> dict[str, Any]:
    answer = client.get(f"/api/v1/tenants/{alice.tenant.slug}/requests/{event.request_id}/")
    assert answer.status_code == 200
    attempts: list[dict[str, Any]] = answer.json()["attempts"]
    return attempts[0]


def test_the_api_says_that_a_sum_is_held_how_much_why_and_until_when(
    alice: Person, alice_client: Client
) -> None:
    # given
    event = held(alice)
    # when
    attempt = attempt_of(alice_client, alice, event)
    # then
    assert (attempt["state"], attempt["cost_usd"]) == ("quarantined", "0")
    assert attempt["held"] == {
        "amount_usd": "0.0016",
        "estimate_usd": "0.000056",
        "reason": REASON,
        "settled_by": (event.drained_at + timedelta(days=7)).isoformat(),
    }


@pytest.mark.parametrize(
    ("source", "confidence", "words"),
    [
        ("provider", "exact", "counted by the seller"),
        ("engine", "exact", "counted by our engine"),
        ("measured_ratio", "medium", "estimated from what this model counted for such text"),
        ("bytes", "low", "estimated at four bytes a token"),
        ("estimated", "", "estimated by the gateway"),  # as release 0.1 wrote it
    ],
)
def test_the_basis_of_a_charge_and_how_sure_it_is_stand_on_page_and_api(
    alice: Person, alice_client: Client, source: str, confidence: str, words: str
) -> None:
    # given
    event = served(alice.tenant, offer(), at=NOW, usage_source=source)
    # when
    attempt = attempt_of(alice_client, alice, event)
    page = said(alice_client.get(f"/requests/{event.request_id}/"))
    # then
    assert (attempt["state"], attempt["held"]) == ("posted", None)
    assert (attempt["usage_source"], attempt["confidence"]) == (source, confidence)
    assert words in page
    assert (f"{confidence} confidence" in page) == (confidence in ("medium", "low"))


def test_the_page_says_what_is_held_and_what_happens_when_nobody_decides(
    alice: Person, alice_client: Client
) -> None:
    # given
    event = held(alice)
    # when
    page = said(alice_client.get(f"/requests/{event.request_id}/"))
    # then
    assert f"{usd_exact(1_600_000_000)} held, in review" in page
    assert REASON in page
    assert f"{usd_exact(56_000_000)} is charged and the rest given back" in page


def test_what_an_attempt_taught_of_its_seller_s_tokenizer_is_the_house_s_own(
    alice: Person, alice_client: Client
) -> None:
    # given
    taught = [[[1] * 13, 40, 10, alice.tenant.pk, 0]]
    event = served(alice.tenant, offer(), at=NOW, taught=taught)
    # when
    attempt = attempt_of(alice_client, alice, event)
    # then
    assert "taught" not in attempt["detail"]
