"""A list of invoices asks as often for many as for one."""

from collections import Counter

import pytest
import redis
from django.db import connection
from django.test import Client

from billing.models import Invoice, Transfer
from tests.gateway import belongings, crowds
from tests.gateway.console_rows import offer
from tests.gateway.plans import ASKED_MAX, statements
from tests.people import Person

pytestmark = pytest.mark.django_db
MANY = 60


def test_what_is_open_is_asked_for_once_for_all_invoices_of_a_page(
    alice: Person, client: Client, redis_client: redis.Redis
) -> None:
    # given: copies of one invoice, each of a transfer of its own
    belongings.make(alice, offer(), redis_client, input_tokens=1_204_003)
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
    for model in (Transfer, Invoice):
        crowds.crowd(model, MANY)
    client.force_login(alice.user)

    # when
    with statements() as said:
        answer = client.get(f"/api/v1/tenants/{alice.tenant.slug}/invoices/?limit=200")

    # then
    found = answer.json()
    assert len(found) == MANY + 1
    assert {invoice["open"] for invoice in found[:MANY]} == {found[0]["total"]}
    assert max(Counter(sql for sql, _ in said).values()) <= ASKED_MAX
