"""The page that waits for the first request: what was not served is not shown as arrived."""

import re
from datetime import timedelta

import pytest
from django.test import Client
from django.utils import timezone

from tests.gateway.console_rows import offer, refused, served
from tests.people import Person

pytestmark = pytest.mark.django_db

SERVED = 'class="arrived"'
NOT_SERVED = 'class="arrived not-served"'


@pytest.fixture
def alice_client(alice: Person, client: Client) -> Client:
    client.force_login(alice.user)
    return client


def step(client: Client) -> str:
    """How the page marks that the request has arrived."""
    page = client.get("/start/").content.decode()
    found = re.search(r'<li class="(\w*)">\s*<h2>Watch it arrive', page)
    assert found is not None
    return found[1]


def shown(client: Client) -> str:
    """The part that is fetched again; the whole page says the same."""
    part = client.get("/start/arrived/").content.decode()
    assert part in client.get("/start/").content.decode()
    return part


@pytest.mark.parametrize(
    ("status", "code", "helps", "page"),
    [
        (404, "model_not_found", "Ask for a model that is sold here.", "/"),
        (402, "over_budget", "add credit", "/budgets/"),
        (403, "missing_scope", "Use a key that is live", "/keys/"),
        (429, "rate_limit_exceeded", "Wait", "/budgets/"),
        (400, "invalid_value", "Change the request", ""),
        (503, "registers_cold", "in a moment", ""),
        (418, "nobody_knows_it", "Change the request", ""),
    ],
)
def test_a_refused_request_says_why_and_what_helps(
    status: int, code: str, helps: str, page: str, alice: Person, alice_client: Client
) -> None:
    # given
    refusal = refused(alice.tenant, at=timezone.now(), status=status, code=code, message="Told so.")

    # when
    part = shown(alice_client)
    whole = alice_client.get(f"/requests/{refusal.request_id}/").content.decode()

    # then
    assert NOT_SERVED in part
    assert SERVED not in part
    assert f"{status} · {code.replace('_', ' ')}" in part
    assert step(alice_client) == ""
    for told in (part, whole):
        assert "Told so." in told
        assert helps in told
        assert not page or f'<a class="link" href="{page}">' in told


@pytest.mark.parametrize("outcome", ["upstream_error", "upstream_cut", "deadline", "unknown"])
def test_a_request_that_no_seller_answered_has_not_arrived(
    outcome: str, alice: Person, alice_client: Client
) -> None:
    served(alice.tenant, offer(), at=timezone.now(), outcome=outcome)

    part = shown(alice_client)

    assert NOT_SERVED in part
    assert "Send it again." in part
    assert step(alice_client) == ""


@pytest.mark.parametrize("outcome", ["ok", "stopped", "client_cancelled"])
def test_one_that_was_served_has(outcome: str, alice: Person, alice_client: Client) -> None:
    # given: another was refused before
    now = timezone.now()
    refused(alice.tenant, at=now - timedelta(minutes=1))
    served(alice.tenant, offer(), at=now, outcome=outcome)

    part = shown(alice_client)

    assert SERVED in part
    assert NOT_SERVED not in part
    assert step(alice_client) == "done"
