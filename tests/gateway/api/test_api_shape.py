"""The API's description is complete, and every tenant address hides other tenants' things."""

import re

import pytest
from django.test import Client
from django.urls import get_resolver

from gateway.api import docs
from gateway.api.urls import urlpatterns
from tests.gateway.pages import said
from tests.people import Person

TENANT_PATHS = [
    pattern.pattern._route
    for pattern in urlpatterns
    if "<slug:tenant>" in getattr(pattern.pattern, "_route", "")
]


def _filled(route: str, person: Person) -> str:
    """A real address from a route: numbers are those of somebody's first thing."""
    named = {"tenant": person.tenant.slug, "member_id": str(person.member.pk)}
    named |= {"request_id": "01900000-0000-7000-8000-000000000000", "number": "INV-2026-000001"}
    return re.sub(r"<\w+:(\w+)>", lambda found: named.get(found[1], "1"), route)


def test_every_address_is_in_the_description(client: Client, db: None) -> None:
    # when
    described = client.get("/api/schema/")

    # then
    assert len(described.json()["paths"]) == len(urlpatterns) - 2
    assert {o.method for o in docs.operations(described.content)} == {
        "GET",
        "POST",
        "PUT",
        "PATCH",
        "DELETE",
    }


def test_the_reference_page_lists_the_calls(client: Client, db: None) -> None:
    # when
    page = client.get("/api/docs/")

    # then
    assert page.status_code == 200
    assert "POST /api/v1/tenants/{tenant}/keys/" in page.text
    assert "name*" in page.text
    assert "a key of the scope <code>operator</code>" in said(page)


@pytest.mark.parametrize("route", TENANT_PATHS)
def test_charlie_finds_nothing_of_alice(
    route: str, client: Client, alice: Person, charlie: Person, redis_client: object
) -> None:
    # given
    client.force_login(charlie.user)
    path = _filled(route, alice)
    assert get_resolver().resolve(f"/api/{path}")

    for method in (client.get, client.post, client.put, client.patch, client.delete):
        # when
        answer = method(f"/api/{path}", content_type="application/json")

        # then
        assert answer.status_code in (404, 405)
        assert answer["content-type"] == "application/problem+json"


@pytest.mark.parametrize("route", TENANT_PATHS)
def test_nobody_is_told_how_to_sign_in(route: str, client: Client, alice: Person) -> None:
    # given
    path = _filled(route, alice)

    # when
    answer = client.get(f"/api/{path}")

    # then
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == "Bearer"
