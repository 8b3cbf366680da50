"""No list of the admin console reads a history, and none asks once for each of its rows.

Held for every list with each of its filters, columns to order by, pages and searches: over 30,000
rows of each table that grows with use, and a page full of every other.
"""

from collections.abc import Iterator
from typing import Any, Final

import pytest
import redis
from django.contrib import admin
from django.db import connection
from django.db.models import Model
from django.test import Client
from django.urls import reverse

from tests.gateway import crowds, long_history
from tests.gateway.long_history import History
from tests.gateway.plans import GROWING, Plans
from tests.services import Services

MANY: Final = 30_000
FEW: Final = 12
# The first choices of a filter, of which the first chooses all.
CHOICES_MAX: Final = 4
SEARCHES: Final = ("aurora", "0193", "17", "none at all", "7f3e9c1a-0000-7000-8000-000000000001")


@pytest.fixture(scope="module")
def crowded(committed: None, services: Services) -> Iterator[History]:
    with redis.Redis.from_url(services.redis.url) as client:
        client.flushall()
        history = long_history.write(client, events=MANY)
        crowd_all()
        yield history
        client.flushall()


def crowd_all() -> None:
    """What others belong to first."""
    listed = admin.site._registry
    for model in [*GROWING, *(model for model in listed if model not in GROWING)]:
        wanted = MANY if model in GROWING else FEW
        there = model._default_manager.count()
        if there < wanted:
            crowds.crowd(model, wanted)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def address_of(model: type[Model]) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")


def addresses(client: Client, model: type[Model]) -> list[str]:
    """A list in every way in which its page offers it."""
    plain = address_of(model)
    page: Any = client.get(plain).context["cl"]
    queries = [f"p={page.paginator.num_pages}"]
    for spec in page.filter_specs:
        choices = list(spec.choices(page))[:CHOICES_MAX]
        queries += [choice["query_string"].lstrip("?") for choice in choices]
    for place, column in enumerate(page.list_display):
        if page.get_ordering_field(column):
            queries += [f"o={place}", f"o=-{place}"]
    if page.search_fields:
        queries += [f"q={term}" for term in SEARCHES]
    return [plain, *(f"{plain}?{query}" for query in dict.fromkeys(queries) if query)]


def test_no_list_of_the_admin_console_reads_a_history(crowded: History, client: Client) -> None:
    client.force_login(crowded.operator)
    plans, wrong = Plans(), {}

    for model in admin.site._registry:
        wrong |= plans.wrong_with(client, addresses(client, model))

    assert wrong == {}
