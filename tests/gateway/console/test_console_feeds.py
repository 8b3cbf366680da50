"""Live feeds: they say that something changed, read once for all, and are limited in number."""

from collections.abc import AsyncIterator
from itertools import count

import pytest
from django.http import HttpResponse, StreamingHttpResponse
from django.test import AsyncClient
from django.utils import timezone

from gateway.console import feeds
from gateway.console.feeds import Feed
from gateway.console.views import live
from tests.gateway.console_rows import offer, served
from tests.people import Person


@pytest.fixture
def loose(monkeypatch: pytest.MonkeyPatch) -> None:
    """These feeds read no database, and a test's connection must not be closed under it."""
    monkeypatch.setattr(feeds.connections, "close_all", lambda: None)


async def _events(feed: Feed, topic: int) -> AsyncIterator[str]:
    response = feed.respond(topic, caller="a")
    assert isinstance(response, StreamingHttpResponse)
    async for part in response:  # type: ignore[misc]
        yield bytes(part).decode()


async def test_a_feed_speaks_when_its_mark_changes(loose: None) -> None:
    numbers = count()
    events = _events(Feed(lambda topic: f"{topic}:{next(numbers)}", interval_s=0.001), 7)

    said = [await anext(events) for _ in range(3)]

    assert said == [
        "retry: 2000\n\n",
        "event: mark\ndata: 7:0\n\n",
        "event: mark\ndata: 7:1\n\n",
    ]
    await events.aclose()  # type: ignore[attr-defined]


async def test_many_pages_read_a_mark_once(loose: None) -> None:
    # given
    reads: list[int] = []

    def read(topic: int) -> str:
        reads.append(topic)
        return "same"

    feed = Feed(read, interval_s=60)

    # when
    async def first_mark() -> str:
        events = _events(feed, 1)
        await anext(events)
        mark = await anext(events)
        await events.aclose()  # type: ignore[attr-defined]
        return mark

    marks = [await first_mark() for _ in range(20)]

    # then
    assert reads == [1]
    assert set(marks) == {"event: mark\ndata: same\n\n"}


async def test_feeds_beyond_the_limit_are_refused_and_closed_ones_do_not_count(
    loose: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given room for one
    monkeypatch.setattr(feeds, "OPEN_MAX", 1)
    feed = Feed(lambda topic: "m", interval_s=0.001)
    first = feed.respond(1, caller="a")

    # when
    refused = feed.respond(1, caller="a")

    # then
    assert isinstance(refused, HttpResponse)
    assert (refused.status_code, refused["Retry-After"]) == (503, "30")
    first.close()
    first.close()
    assert isinstance(feed.respond(1, caller="a"), StreamingHttpResponse)
    assert isinstance(feed.respond(1, caller="a"), HttpResponse)


async def test_one_caller_does_not_take_all_places(
    loose: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setattr(feeds, "OPEN_PER_CALLER_MAX", 1)
    feed = Feed(lambda topic: "m", interval_s=0.001)

    # when
    first, second, other = (feed.respond(1, caller=who) for who in ("a", "a", "b"))

    # then
    assert [first.status_code, second.status_code, other.status_code] == [200, 503, 200]
    first.close()
    assert feed.respond(1, caller="a").status_code == 200


def test_the_mark_of_a_tenant_moves_with_its_own_requests_only(
    alice: Person, charlie: Person
) -> None:
    before = live._requests_mark(alice.tenant.pk), live._requests_mark(charlie.tenant.pk)

    served(alice.tenant, offer(), at=timezone.now())

    assert live._requests_mark(alice.tenant.pk) != before[0]
    assert live._requests_mark(charlie.tenant.pk) == before[1]


@pytest.mark.django_db(transaction=True)
async def test_requests_are_followed_by_members_only() -> None:
    assert (await AsyncClient().get("/live/requests/")).status_code == 403
