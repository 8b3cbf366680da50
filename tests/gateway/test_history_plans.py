"""No page, list, filter, search or API call reads a tenant's or the house's history.

Held for every address of pages and API: over 300,000 events each statement of each answer is run
again under EXPLAIN ANALYZE. None scans a table that grows with use, none reads more rows of one
than a page can need, and no page asks once per row.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
import redis
from django.db import connection
from django.test import Client

from gateway.api.urls import urlpatterns as api_urlpatterns
from gateway.console.urls import urlpatterns
from tests.gateway import belongings, long_history
from tests.gateway.long_history import History
from tests.services import Services

GROWS: Final = ("billing_usageevent", "billing_entry", "billing_transfer")
# Ten thousand rows are as many as an admin list reaches back.
ROWS_READ_MAX: Final = 25_000
# A table that is this small is best read whole.
SMALL: Final = 1_000
QUERIES_MAX: Final = 40
# Streams of marks, of which there is no end.
FEEDS: Final = ("live/home/", "live/board/", "live/requests/")
# What changes something, or leaves the installation.
NOT_READ: Final = ("logout/", "sign-on/")
Statement = tuple[str, Any]


@pytest.fixture(scope="module")
def history(committed: None, services: Services) -> Iterator[History]:
    with redis.Redis.from_url(services.redis.url) as client:
        client.flushall()
        yield long_history.write(client)
        client.flushall()


@contextmanager
def statements() -> Iterator[list[Statement]]:
    said: list[Statement] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        said.append((sql, params))
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note):
        yield said


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


def read_by(statement: Statement) -> Iterator[dict[str, Any]]:
    """The scans of a statement that read a table which grows."""
    sql, params = statement
    if not re.match(r"\s*(SELECT|WITH)\b", sql) or "nextval" in sql:
        return
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {sql}", params)
        (found,) = cursor.fetchone()
    plan = json.loads(found) if isinstance(found, str) else found
    yield from (node for node in nodes(plan[0]["Plan"]) if node.get("Relation Name") in GROWS)


def faults(said: list[Statement]) -> list[str]:
    told = []
    if len(said) > QUERIES_MAX:
        told.append(f"{len(said)} statements, such as {said[-1][0][:200]}")
    for statement in dict.fromkeys((sql, str(params)) for sql, params in said):
        whole = next(each for each in said if (each[0], str(each[1])) == statement)
        for node in read_by(whole):
            removed = node.get("Rows Removed by Filter", 0)
            rows = (node["Actual Rows"] + removed) * node["Actual Loops"]
            is_whole = node["Node Type"] == "Seq Scan" and rows > SMALL
            if is_whole or rows > ROWS_READ_MAX:
                told.append(f"{node['Node Type']} of {rows:,.0f}: {whole[0][:600]}")
    return told


def wrong_with(client: Client, addresses: list[str]) -> dict[str, list[str]]:
    found = {}
    for address in addresses:
        with statements() as said:
            answer = client.get(address)
            if answer.streaming:
                b"".join(answer)
        assert answer.status_code < 500, address
        if told := faults(said):
            found[address] = told
    return found


def test_no_page_of_a_tenant_reads_its_history(history: History, client: Client) -> None:
    # given
    client.force_login(history.things.person.user)
    key, things = history.things.key.pk, history.things
    routes = belongings.routes_of(urlpatterns)
    pages = [f"/{things.address(r)}" for r in routes if r not in FEEDS and r not in NOT_READ]
    rare = (
        "outcome=upstream_cut", "outcome=refused", f"key={history.unused_key}", "model=none",
        "supplier=none", "model=model-0&supplier=seller-1", f"model=model-1&key={key}",
        f"supplier=seller-1&key={history.unused_key}", "model=model-1&outcome=deadline",
        f"outcome=deadline&key={key}", "before=2026-01-01T00:00:00Z", "outcome=ok",
        "supplier=seller-1&model=model-1",
    )  # fmt: skip
    pages += [f"/requests/?{query}" for query in rare]
    pages += [f"/overview/?span={span}" for span in ("day", "week", "month")]

    # then
    assert wrong_with(client, pages) == {}


def test_no_call_of_the_management_api_reads_a_history(history: History, client: Client) -> None:
    client.force_login(history.things.person.user)
    slug = history.things.person.tenant.slug
    calls = [
        f"/api/{history.things.address(route)}"
        for route in belongings.routes_of(api_urlpatterns)
        if not route.startswith("workers/")
    ]
    calls += [
        f"/api/v1/tenants/{slug}/requests/?{query}"
        for query in ("outcome=upstream_cut", "model=none", "limit=200", "before=2026-01-01T00:00Z")
    ]

    assert wrong_with(client, calls) == {}
