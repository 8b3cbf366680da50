"""No page, list, filter, search or API call reads a tenant's or the house's history.

Held for every address of pages and API: over 300,000 events each statement of each answer is run
again under EXPLAIN ANALYZE. None scans a table that grows with use, none reads more rows of one
than a page can need, and no page asks once per row.
"""

from collections.abc import Iterator
from itertools import product
from typing import Final

import pytest
import redis
from django.test import Client

from gateway.api.urls import urlpatterns as api_urlpatterns
from gateway.console.urls import urlpatterns
from gateway.models import Refusal
from tests.gateway import belongings, crowds, long_history
from tests.gateway.long_history import History
from tests.gateway.plans import Plans
from tests.services import Services

REFUSALS: Final = 30_000
# The page on which people confirm who they are asks for each way in which they could.
CONFIRMING: Final = 6
# Streams of marks, of which there is no end.
FEEDS: Final = ("live/home/", "live/board/", "live/requests/")
# What changes something, or leaves the installation.
NOT_READ: Final = ("logout/", "sign-on/")


@pytest.fixture(scope="module")
def history(committed: None, services: Services) -> Iterator[History]:
    with redis.Redis.from_url(services.redis.url) as client:
        client.flushall()
        history = long_history.write(client)
        crowds.crowd(Refusal, REFUSALS)
        yield history
        client.flushall()


def filters(key: int, unused_key: int) -> list[str]:
    """Every two and more filters of a list of requests: what is usual, rare, and not there."""
    values = {
        "model": ("", "model-1", "none"),
        "supplier": ("", "seller-1", "none"),
        "outcome": ("", "ok", "deadline", "upstream_cut", "refused"),
        "key": ("", str(key), str(unused_key)),
    }
    queries = [
        "&".join(f"{name}={value}" for name, value in zip(values, chosen, strict=True) if value)
        for chosen in product(*values.values())
    ]
    return [*queries, "before=2026-01-01T00:00:00Z"]


def test_no_page_of_a_tenant_reads_its_history(history: History, client: Client) -> None:
    # given
    client.force_login(history.things.person.user)
    key, things = history.things.key.pk, history.things
    routes = belongings.routes_of(urlpatterns)
    pages = [f"/{things.address(r)}" for r in routes if r not in FEEDS and r not in NOT_READ]
    pages += [f"/requests/?{query}" for query in filters(key, history.unused_key)]
    pages += [f"/overview/?span={span}" for span in ("day", "week", "month")]

    # then
    assert Plans().wrong_with(client, pages, asked_max=CONFIRMING) == {}


def test_no_call_of_the_management_api_reads_a_history(history: History, client: Client) -> None:
    client.force_login(history.things.person.user)
    slug = history.things.person.tenant.slug
    calls = [
        f"/api/{history.things.address(route)}"
        for route in belongings.routes_of(api_urlpatterns)
        if not route.startswith("workers/")
    ]
    keys = (history.things.key.pk, history.unused_key)
    calls += [
        f"/api/v1/tenants/{slug}/requests/?{query}" for query in ("limit=200", *filters(*keys))
    ]

    assert Plans().wrong_with(client, calls) == {}
