"""One request whole: its attempts on one axis, its cost line by line, its entries; private."""

import re
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlencode
from uuid import UUID

import pytest
from django.test import Client

from billing.books import usage_queries
from billing.books.usage_queries import RequestFilter
from billing.models import TrueUp
from gateway.console.figures import usd_exact
from gateway.console.requests import cost_lines, request_list, waterfall
from gateway.models import Refusal
from tests.gateway.console_rows import offer, refused, request_id_at, served
from tests.gateway.pages import said
from tests.people import Person

NOW = datetime(2026, 11, 23, 2, 0, tzinfo=UTC)


@pytest.fixture
def alice_client(alice: Person, client: Client) -> Client:
    client.force_login(alice.user)
    return client


def test_cost_lines_sum_to_what_was_charged(alice: Person) -> None:
    # given 504 uncached and 700 cached input tokens and 318 of output
    event = served(alice.tenant, offer(), at=NOW)

    # when
    bill = cost_lines.bill_of(event)

    # then each class stands by itself and the sum is exact
    assert [(line.label, line.tokens, line.amount_pico) for line in bill.lines] == [
        ("Input", 504, 50_400_000),
        ("Cached input", 700, 35_000_000),
        ("Output", 318, 127_200_000),
    ]
    assert bill.rated_pico == bill.charged_pico == event.tenant_cost_pico == 212_600_000


def test_a_failed_attempt_is_shown_as_not_charged(alice: Person) -> None:
    event = served(alice.tenant, offer(), at=NOW, outcome="upstream_error", billable=False)

    bill = cost_lines.bill_of(event)

    assert bill.charged_pico == 0
    assert bill.waived_pico == bill.rated_pico == 212_600_000


def test_attempts_share_one_axis_from_the_requests_id_on(alice: Person) -> None:
    # given a first try of 400 ms that failed and a second one sent 500 ms after the first
    sold, request_id = offer(), request_id_at(NOW - timedelta(milliseconds=100))
    first = served(
        alice.tenant, sold, at=NOW, request_id=request_id, outcome="upstream_error",
        billable=False, ttft_ms=None, e2e_ms=400.0,
    )  # fmt: skip
    second = served(
        alice.tenant, sold, at=NOW + timedelta(milliseconds=500), request_id=request_id,
        attempt=2, ttft_ms=100.0, e2e_ms=400.0,
    )  # fmt: skip

    # when
    drawn = waterfall.draw([first, second])

    # then
    assert drawn.total_ms == 1_000.0
    assert [(bar.kind, bar.x, bar.width) for bar in drawn.lanes[0].bars] == [
        ("before", 0, 100),
        ("failed", 100, 400),
    ]
    assert [(bar.kind, bar.x, bar.width) for bar in drawn.lanes[1].bars] == [
        ("wait", 600, 100),
        ("flow", 700, 300),
    ]


def test_the_page_shows_cost_ledger_and_reasons(alice: Person, alice_client: Client) -> None:
    ranking = {
        "policy": "cheapest",
        "expected_tokens": {"input": 900, "output": 256},
        "candidates": [
            {"rank": 1, "offer": "acme/small", "expected_usd": "0.0002", "greatest_usd": "0.002",
             "score": 1.0, "why": "costs about $0.0002"}
        ],
        "rejections": [{"offer": "zeta/small", "code": "no_credential", "reason": "no credential"}],
    }  # fmt: skip
    event = served(alice.tenant, offer(), at=NOW, ranking=ranking)

    page = alice_client.get(f"/requests/{event.request_id}/").content.decode()

    assert "$0.000\u2009212\u2009600" in page
    assert f"Transfer {event.transfer_id}" in page
    assert "no credential" in page
    assert "costs about $0.0002" in page


def test_someone_elses_request_does_not_exist(
    alice: Person, charlie: Person, client: Client
) -> None:
    event = served(alice.tenant, offer(), at=NOW)
    turned_away = refused(alice.tenant, at=NOW)
    client.force_login(charlie.user)

    for request_id in (event.request_id, turned_away.request_id):
        assert client.get(f"/requests/{request_id}/").status_code == 404
    assert usage_queries.requests(charlie.tenant.pk, filters=RequestFilter()) == []


def test_a_refused_request_says_what_happened(alice: Person, alice_client: Client) -> None:
    reasons = [{"offer": "zeta/small", "reason": "no credential"}]
    turned_away = refused(
        alice.tenant, at=NOW, status=503, code="no_eligible_offer", detail={"reasons": reasons}
    )

    page = alice_client.get(f"/requests/{turned_away.request_id}/").content.decode()

    assert "503 · no eligible offer" in page
    assert "zeta/small" in page


def test_served_and_refused_stand_in_one_list_newest_first(alice: Person) -> None:
    # given
    sold = offer()
    served(alice.tenant, sold, at=NOW - timedelta(seconds=30))
    refused(alice.tenant, at=NOW - timedelta(seconds=20))
    served(alice.tenant, sold, at=NOW - timedelta(seconds=10), outcome="client_cancelled")

    # when
    rows = request_list.read(alice.tenant.pk, request_list.asked_in({})).rows

    # then
    assert [row.outcome for row in rows] == ["cancelled by the client", "402 · over budget", "200"]


def test_filters_stand_in_the_url(alice: Person, alice_client: Client) -> None:
    # given
    served(alice.tenant, offer(), at=NOW)
    served(alice.tenant, offer("zeta", "large"), at=NOW)
    refused(alice.tenant, at=NOW)

    # when
    def models(query: str) -> list[str]:
        page = alice_client.get(f"/requests/?{query}")
        return [row.model for row in page.context["page"].rows]

    # then
    assert models("model=large") == ["large"]
    assert models("supplier=acme") == ["small"]
    assert models("outcome=refused") == ["small"]
    assert models("key=not-a-number&before=nonsense") != []


def read_all(person: Person, query: str = "", *, limit: int) -> list[UUID]:
    """Every request that the pages show, by following their links."""
    seen: list[UUID] = []
    for _ in range(99):
        asked = request_list.asked_in(dict(parse_qsl(query)))
        page = request_list.read(person.tenant.pk, asked, limit=limit)
        seen += [row.request_id for row in page.rows]
        if not page.next_query:
            return seen
        query = page.next_query
    raise AssertionError("pages without end")


def crowded(person: Person) -> set[UUID]:
    """Nine requests of one millisecond, three of them refused and some with a second attempt that
    is as much later as the next requests are."""
    sold, made = offer(), set()
    for place in range(6):
        event = served(person.tenant, sold, at=NOW, outcome="upstream_error" if place % 2 else "ok")
        made.add(event.request_id)
        if place % 2:
            later = NOW + timedelta(seconds=place)
            served(person.tenant, sold, at=later, request_id=event.request_id, attempt=2)
    made |= {refused(person.tenant, at=NOW).request_id for _ in range(3)}
    return made


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 8, 9, 10])
def test_every_request_of_a_crowded_millisecond_stands_on_exactly_one_page(
    alice: Person, limit: int
) -> None:
    made = crowded(alice)

    seen = read_all(alice, limit=limit)

    assert len(seen) == len(made)
    assert set(seen) == made


@pytest.mark.parametrize(
    ("query", "expected"), [("outcome=ok", 6), ("outcome=upstream_error", 3), ("model=small", 9)]
)
def test_filtered_pages_lose_nothing_either(alice: Person, query: str, expected: int) -> None:
    crowded(alice)

    seen = read_all(alice, query, limit=2)

    assert len(seen) == len(set(seen)) == expected


def test_a_page_that_is_just_full_has_no_older_one(alice: Person) -> None:
    crowded(alice)

    assert request_list.read(alice.tenant.pk, request_list.asked_in({}), limit=9).next_query == ""


def test_a_link_with_a_moment_opens_what_was_admitted_before_it(alice: Person) -> None:
    old = served(alice.tenant, offer(), at=NOW - timedelta(seconds=1))
    served(alice.tenant, offer("zeta"), at=NOW + timedelta(seconds=1))

    assert read_all(alice, urlencode({"before": NOW.isoformat()}), limit=5) == [old.request_id]


def test_the_api_pages_by_the_same_place(alice: Person, alice_client: Client) -> None:
    # given
    made = crowded(alice)
    refusals = set(Refusal.objects.values_list("request_id", flat=True))
    url, seen = f"/api/v1/tenants/{alice.tenant.slug}/requests/?limit=2", []

    # when
    while url:
        answer = alice_client.get(url)
        seen += [row["request_id"] for row in answer.json()["requests"]]
        found = re.match(r'<(.*)>; rel="next"', answer.headers.get("Link", ""))
        url = found[1] if found else ""

    # then
    assert len(seen) == 6
    assert set(map(UUID, seen)) == made - refusals
    bad = alice_client.get(f"/api/v1/tenants/{alice.tenant.slug}/requests/?before=yesterday")
    assert bad.status_code == 400


def test_a_count_that_came_after_the_charge_stands_on_the_page_and_in_the_api(
    alice: Person, alice_client: Client
) -> None:
    # given
    event = served(alice.tenant, offer(), at=NOW)
    TrueUp.objects.create(
        request_id=event.request_id,
        attempt=event.attempt,
        day=event.day,
        tenant=alice.tenant,
        input_tokens=1_150,
        output_tokens=300,
        charged_pico=event.tenant_cost_pico,
        due_pico=event.tenant_cost_pico - 12_600_000,
        counted_at=NOW,
    )
    # when
    page = alice_client.get(f"/requests/{event.request_id}/")
    told = alice_client.get(f"/api/v1/tenants/{alice.tenant.slug}/requests/{event.request_id}/")
    # then
    text = re.sub(r"<[^>]+>", "", said(page))
    assert "Counted later by our engine: 1,150 tokens in, 300 out." in text
    assert f"{usd_exact(12_600_000)} given back with the next notes" in text
    assert told.json()["trued_up"] == [
        {
            "attempt": event.attempt,
            "input_tokens": 1_150,
            "output_tokens": 300,
            "given_back_usd": "0.0000126",
            "note": None,
        }
    ]
