"""No list of the admin console reads a history, and none asks once for each of its rows.

Held for every list with each of its filters, columns to order by, pages and searches: over 30,000
rows of each table that grows with use, and a page full of every other.
"""

from collections.abc import Iterator
from typing import Final

import pytest
import redis
from django.contrib import admin
from django.test import Client

from tests.gateway import addresses, crowds, long_history
from tests.gateway.long_history import History
from tests.gateway.plans import GROWING, Plans
from tests.services import Services

MANY: Final = 30_000
FEW: Final = 12


@pytest.fixture(scope="module")
def crowded(committed: None, services: Services) -> Iterator[History]:
    with redis.Redis.from_url(services.redis.url) as client:
        client.flushall()
        history = long_history.write(client, events=MANY)
        crowds.crowd_all(GROWING, many=MANY, few=FEW)
        yield history
        client.flushall()


def test_no_list_of_the_admin_console_reads_a_history(crowded: History, client: Client) -> None:
    client.force_login(crowded.operator)
    plans, wrong = Plans(), {}

    for model in admin.site._registry:
        wrong |= plans.wrong_with(client, addresses.of_list(client, model))

    assert wrong == {}
