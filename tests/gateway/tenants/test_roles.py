"""docs/roles.md is the matrix of roles and actions; this holds the console to each cell."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.utils import timezone

from gateway.api import docs
from gateway.api.base import OperatorView
from gateway.api.urls import urlpatterns as api_urlpatterns
from gateway.console.urls import urlpatterns
from gateway.models import Member
from gateway.tenants import keys
from tests.people import Person

PAGE = Path(__file__).parents[3] / "docs" / "roles.md"
ROLES = ("owner", "admin", "developer", "viewer")
# Open to everybody, to nobody in particular, or held to account by tests of their own.
ELSEWHERE = re.compile(
    r"^$|models|live/|login|logout|sign-on|tenant/|theme/|join/|webhooks/|start/arrived"
    r"|account/|adjustments/|invoices/|credit-notes/|receipts/|refunds/|requests/<uuid"
    r"|playground/send"
)


@dataclass(frozen=True)
class Row:
    what: str
    method: str
    path: str
    allowed: tuple[str, ...]


def rows() -> list[Row]:
    found = []
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and cells[2] in ("yes", "no"):
            method, path = cells[1].split()
            allowed = [role for role, cell in zip(ROLES, cells[2:], strict=True) if cell == "yes"]
            found.append(Row(cells[0], method, path, tuple(allowed)))
    return found


MATRIX = rows()
HOUSE = ("operator key", "staff who may pay", "other staff", "management key", "owner")


def house_rows() -> list[Row]:
    found = []
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 2 + len(HOUSE) and cells[2] in ("yes", "no"):
            method, path = cells[1].split()
            allowed = [who for who, cell in zip(HOUSE, cells[2:], strict=True) if cell == "yes"]
            found.append(Row(cells[0], method, path, tuple(allowed)))
    return found


HOUSE_MATRIX = house_rows()


def caller(who: str, client: Client, alice: Person) -> dict[str, str]:
    """Sign in as somebody, or have a key: the headers of a call."""
    terms: dict[str, Any] = {"tenant": alice.tenant, "name": who, "created_by": "op"}
    terms |= {"now": timezone.now()}
    if who == "operator key":
        plain = keys.issue_for_operators(**terms, expires_at=None).plain
        return {"Authorization": f"Bearer {plain}"}
    if who == "management key":
        plain = keys.issue(**terms, scopes=keys.SCOPES).plain
        return {"Authorization": f"Bearer {plain}"}
    if who != "owner":
        User.objects.filter(pk=alice.user.pk).update(is_staff=True)
        # Whoever changes tenants and reads events may still not touch payouts.
        names = ["change_tenant", "view_usageevent"]
        if who == "staff who may pay":
            names = ["view_payout", "add_payout"]
        alice.user.user_permissions.set(Permission.objects.filter(codename__in=names))
    client.force_login(alice.user)
    return {}


@pytest.mark.parametrize("who", HOUSE)
@pytest.mark.parametrize("row", HOUSE_MATRIX, ids=lambda row: row.what)
def test_the_houses_calls_are_for_whom_the_page_says(
    row: Row, who: str, client: Client, alice: Person, redis_client: object
) -> None:
    # given
    headers = caller(who, client, alice)
    # when
    answer = client.generic(
        row.method, row.path, "{}", content_type="application/json", headers=headers
    )
    elsewhere = client.generic(
        row.method,
        row.path,
        "{}",
        content_type="application/json",
        headers=headers,
        REMOTE_ADDR="192.0.2.7",
    )
    # then: nobody from where the admin console is not open
    assert elsewhere.status_code == 403
    if who in row.allowed:
        assert answer.status_code in (200, 400, 404), answer.content[:300]
    else:
        assert answer.status_code == 403


def test_every_call_of_the_house_is_in_the_matrix() -> None:
    # given
    listed = {re.sub("nobody", "<str:seller>", row.path) for row in HOUSE_MATRIX}
    # when
    of_the_house = {
        f"/api/{pattern.pattern}"
        for pattern in api_urlpatterns
        if issubclass(getattr(pattern.callback, "cls", object), OperatorView)
    }
    # then
    assert of_the_house == listed
    assert len(HOUSE_MATRIX) == 4


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("row", MATRIX, ids=lambda row: row.what)
def test_a_role_may_do_what_the_page_says(
    row: Row, role: str, client: Client, alice: Person, settings: Any, redis_client: object
) -> None:
    # given
    settings.STRIPE_API_KEY = settings.STRIPE_WEBHOOK_SECRET = "set up"
    Member.objects.filter(pk=alice.member.pk).update(role=role)
    client.force_login(alice.user)
    path = row.path.format(tenant=alice.tenant.slug)
    # when
    answer = client.generic(row.method, path, "{}", content_type=_kind(path))
    # then
    if role in row.allowed:
        assert answer.status_code != 403, answer.content[:300]
        assert answer.status_code < 500
    else:
        assert answer.status_code == 403


def _kind(path: str) -> str:
    is_api = path.startswith("/api/")
    return "application/json" if is_api else "application/x-www-form-urlencoded"


def test_every_page_is_in_the_matrix() -> None:
    # given
    listed = {re.sub(r"\d+", "0", row.path).strip("/") for row in MATRIX}
    # when
    routes = [str(getattr(pattern.pattern, "_route", "")) for pattern in urlpatterns]
    missing = [
        route
        for route in routes
        if not ELSEWHERE.search(route) and re.sub(r"<\w+:\w+>", "0", route).strip("/") not in listed
    ]
    # then
    assert missing == []
    assert len(MATRIX) > 30


def test_every_write_of_the_api_is_in_the_matrix(client: Client, db: None) -> None:
    # given
    listed = {(row.method, re.sub(r"/0/", "/{}/", row.path)) for row in MATRIX}
    listed = {(method, path.replace("/teams/main/", "/teams/{}/")) for method, path in listed}
    # when
    operations = docs.operations(client.get("/api/schema/").content)
    writes = {
        (each.method, re.sub(r"\{(?!tenant\})\w+\}", "{}", each.path))
        for each in operations
        if each.method != "GET" and "{tenant}" in each.path
    }
    # then
    assert writes - listed == set()
    assert len(writes) >= 14


def test_a_stranger_is_asked_to_sign_in(client: Client, db: None) -> None:
    for row in (*MATRIX, *HOUSE_MATRIX):
        path = row.path.format(tenant="aurora")
        answer = client.generic(row.method, path, "{}", content_type=_kind(path))
        assert answer.status_code in (302, 401, 403), row
        assert answer.status_code != 302 or answer["Location"].startswith("/login/")
