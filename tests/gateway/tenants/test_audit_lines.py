"""The audit log for people: names, amounts, and nothing of another tenant's."""

import pytest

from billing.models import AuditEntry
from gateway.tenants import audit_lines
from gateway.tenants.audit_lines import change_of
from tests.people import Person

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            None,
            {"limit_pico": 500_250_000_000_000, "window": "month"},
            "limit $500.25, window month",
        ),
        ({"limit_pico": 10**12}, {"limit_pico": 7 * 10**11}, "limit $1 → $0.7"),
        ({"limit_pico": 10**12}, {"limit_pico": None}, "limit $1 → nothing"),
        ({"charged_nano": 1_500}, None, "removed: charged $0.0000015"),
        ({"total_cents": 1999}, {"total_cents": 2000}, "total $19.99 → $20"),
        ({"change_ppm": -200_000}, {"change_ppm": 50_000}, "change -20 % → +5 %"),
        ({"rpm": 1000, "shadow": False}, {"rpm": 1000, "shadow": True}, "shadow False → True"),
        ({"a": 1}, {"a": 1}, ""),
        (None, None, ""),
        ({}, {"rates": {"output_pico": 2}}, "rates output $0.000000000002"),
        (None, {str(n): n for n in range(8)}, "0 0, 1 1, 2 2, 3 3, 4 4, 5 5 and 2 more"),
        (None, {"name": "x" * 100}, f"name {'x' * 60}…"),
    ],
)
def test_a_change_is_said_in_dollars_and_words(before, after, said: str) -> None:
    assert change_of(before, after) == said


def entry(subject: str, person: Person) -> AuditEntry:
    return AuditEntry(actor="ada", action="quota.set", subject=subject, tenant=person.tenant)


def test_teams_and_keys_have_names_and_of_another_tenant_only_numbers(
    alice: Person, charlie: Person
) -> None:
    # given
    mine, theirs = alice.team, charlie.team

    # when
    lines = audit_lines.read(
        [
            entry(f"team {mine.pk} per month", alice),
            entry(f"team {theirs.pk} per month", alice),
            entry("key 999999999", alice),
            entry("the team 5a and a key of 7", alice),
        ]
    )

    # then
    assert [line.subject for line in lines] == [
        f"team {mine.name} per month",
        f"team {theirs.pk} per month",
        "key 999999999",
        "the team 5a and a key of 7",
    ]


def test_a_page_of_lines_takes_two_look_ups(alice: Person, django_assert_num_queries) -> None:
    entries = [entry(f"team {alice.team.pk}, key {n}", alice) for n in range(40)]
    with django_assert_num_queries(2):
        audit_lines.read(entries)
