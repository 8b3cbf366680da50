"""No page, list, filter, search or API call reads a tenant's or the house's history.

Held for every address of pages and API: over 300,000 events each statement of each answer is run
again under EXPLAIN ANALYZE. None scans a table that grows with use, none reads more rows of one
than a page can need, and no page asks once per row.
"""

from collections.abc import Iterator
from typing import Final

import pytest
import redis
from django.test import Client

from gateway.models import Refusal
from tests.gateway import addresses, crowds, long_history
from tests.gateway.long_history import History
from tests.gateway.plans import Plans
from tests.services import Services

REFUSALS: Final = 30_000
# The page on which people confirm who they are asks for each way in which they could.
CONFIRMING: Final = 6


@pytest.fixture(scope="module")
def history(committed: None, services: Services) -> Iterator[History]:
    with redis.Redis.from_url(services.redis.url) as client:
        history = long_history.fresh(client)
        crowds.crowd(Refusal, REFUSALS)
        yield history
        client.flushall()


def test_no_page_of_a_tenant_reads_its_history(history: History, client: Client) -> None:
    # given
    client.force_login(history.things.person.user)
    pages = addresses.of_pages(history.known) + addresses.of_request_list(history.known)

    # then
    assert Plans().wrong_with(client, pages, asked_max=CONFIRMING) == {}


def test_no_call_of_the_management_api_reads_a_history(history: History, client: Client) -> None:
    client.force_login(history.things.person.user)
    calls = addresses.of_calls(history.known)

    assert Plans().wrong_with(client, calls) == {}
