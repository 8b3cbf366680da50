"""docs/roles.md is the matrix of roles and actions; this holds the console to each cell."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from gateway.console.urls import urlpatterns
from gateway.models import Member
from tests.people import Person

PAGE = Path(__file__).parents[2] / "docs" / "roles.md"
ROLES = ("owner", "admin", "developer", "viewer")
# Open to everybody, to nobody in particular, or held to account by tests of their own.
ELSEWHERE = re.compile(
    r"^$|models|live/|login|logout|sign-on|tenant/|theme/|join/|webhooks/|start/arrived"
    r"|invoices/|credit-notes/|receipts/|refunds/|requests/<uuid|playground/send"
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


def test_a_stranger_is_asked_to_sign_in(client: Client, db: None) -> None:
    for row in MATRIX:
        path = row.path.format(tenant="aurora")
        answer = client.generic(row.method, path, "{}", content_type=_kind(path))
        assert answer.status_code in (302, 401, 403), row
        assert answer.status_code != 302 or answer["Location"].startswith("/login/")
