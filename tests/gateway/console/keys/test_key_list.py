"""The keys of a tenant, fifty a page: each is found once, whatever happens between two pages."""

from datetime import timedelta
from html import unescape
from typing import Final

import pytest
from django.test import Client
from django.utils import timezone

from gateway.console.keys.listing import KeyPage
from gateway.models import ApiKey
from gateway.tenants import keys
from tests.gateway.pages import said as words_of
from tests.gateway.plans import Plans, statements
from tests.people import Person

pytestmark = pytest.mark.django_db
MANY: Final = 300
REVOKED: Final = 60


@pytest.fixture
def many(alice: Person, client: Client) -> list[ApiKey]:
    """Three hundred keys, the newest first; of every fifth is known that it was revoked."""
    now = timezone.now()
    made = ApiKey.objects.bulk_create(
        ApiKey(
            tenant=alice.tenant,
            team=alice.team,
            name=f"service {number:03}",
            public_id=f"public{number:03}",
            key_hash=number.to_bytes(32, "big"),
            scopes=[keys.INFERENCE],
            created_by="alice",
            revoked_at=now - timedelta(minutes=number) if number % 5 == 0 else None,
        )
        for number in range(MANY)
    )
    client.force_login(alice.user)
    return made[::-1]


def page_at(client: Client, query: str = "") -> KeyPage:
    page: KeyPage = client.get(f"/keys/?{query}").context["page"]
    return page


def walk(client: Client, query: str = "") -> list[list[str]]:
    pages = [page_at(client, query)]
    while pages[-1].next_query:
        pages.append(page_at(client, pages[-1].next_query))
    return [[row.key.name for row in page.rows] for page in pages]


def names(found: list[ApiKey], *, revoked: bool) -> list[str]:
    return [key.name for key in found if (key.revoked_at is not None) == revoked]


def test_fifty_a_page_and_those_that_can_be_used_first(many: list[ApiKey], client: Client) -> None:
    pages = walk(client)
    assert [len(page) for page in pages] == [50] * 6
    assert sum(pages, []) == names(many, revoked=False) + names(many, revoked=True)


def test_the_page_leads_to_the_next_as_it_was_found(many: list[ApiKey], client: Client) -> None:
    # when
    page = client.get("/keys/?q=service+0")
    # then
    query = page_at(client, "q=service+0").next_query
    assert f'href="?{query}" rel="next">Older</a>' in unescape(page.text)
    assert query == f"q=service+0&before=open-{page_at(client, 'q=service+0').rows[-1].key.pk}"
    assert "50 keys" in words_of(page)
    assert walk(client, "q=service+0") == [
        [*names(many, revoked=False)[160:210]],
        [*names(many, revoked=False)[210:], *names(many, revoked=True)[40:]],
    ]


@pytest.mark.parametrize("query", ["q=SERVICE+123", "q=public123", "q=tk-public123"])
def test_a_key_is_found_by_its_name_and_by_its_public_part(
    query: str, many: list[ApiKey], client: Client
) -> None:
    assert walk(client, query) == [["service 123"]]


def test_what_is_not_found_is_told_and_the_way_back(many: list[ApiKey], client: Client) -> None:
    page = client.get("/keys/?q=nothing")
    assert page.context["page"].rows == []
    assert 'No key matches. <a class="link" href="/keys/">Show all of them</a>.' in words_of(page)


def test_a_key_that_is_revoked_between_two_pages_hides_no_other(
    many: list[ApiKey], client: Client
) -> None:
    # given
    first = page_at(client)
    last = first.rows[-1].key
    # when
    ApiKey.objects.filter(pk=last.pk).update(revoked_at=timezone.now())
    rest = sum(walk(client, first.next_query), [])
    # then
    shown = [row.key.name for row in first.rows]
    assert set(shown) | set(rest) == {key.name for key in many}
    assert rest.count(last.name) == 1


@pytest.mark.parametrize(
    "before", ["x", "open-", "open--1", "closed-5", "open-%30%EF%BC%91", "open-" + "9" * 19]
)
def test_a_place_that_is_none_begins_at_the_first_page(
    before: str, many: list[ApiKey], client: Client
) -> None:
    found = [row.key.name for row in page_at(client, f"before={before}").rows]
    assert found == names(many, revoked=False)[:50]


def test_a_place_of_another_tenant_shows_one_s_own(
    many: list[ApiKey], charlie: Person, client: Client
) -> None:
    client.force_login(charlie.user)
    assert walk(client, f"before=open-{many[0].pk}") == [[]]
    assert walk(client, "q=service") == [[]]


def test_few_keys_are_shown_without_a_pager(alice: Person, client: Client) -> None:
    keys.issue(tenant=alice.tenant, name="only", created_by="alice", now=timezone.now())
    client.force_login(alice.user)
    page = client.get("/keys/").text
    assert 'class="pager"' not in page
    assert 'role="search"' not in page


def test_a_page_of_many_asks_as_often_as_one_of_few(many: list[ApiKey], client: Client) -> None:
    # given
    page_at(client)
    asked = []
    for left in (MANY, 1):
        ApiKey.objects.exclude(pk__in=[key.pk for key in many[:left]]).delete()
        # when
        with statements() as said:
            page_at(client)
        # then
        assert Plans().faults(said) == []
        asked.append(len(said))
    assert asked[0] == asked[1]
