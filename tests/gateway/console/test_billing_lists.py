"""Documents of a tenant, a page at a time: none is out of reach, and no statement is one a row."""

import re
from datetime import UTC, date, datetime
from html import unescape

import pytest
import redis
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from billing.corrections import adjustments
from billing.models import AdjustmentNote, CreditGrant, CreditNote, Invoice, TopUp, Transfer
from gateway.console.views.billing import SHOWN_MAX
from tests.gateway import belongings, crowds
from tests.gateway.console_rows import offer
from tests.people import Person

pytestmark = pytest.mark.django_db
MANY = 2 * SHOWN_MAX + 3
BOUGHT_AT = datetime(2026, 4, 10, tzinfo=UTC)
OLDER = r'href="\?({name}=\d+)#{name}" rel="next"'


@pytest.fixture
def documents(alice: Person, redis_client: redis.Redis) -> None:
    """One of each kind: the others are its copies."""
    belongings.make(alice, offer(), redis_client, input_tokens=1_204_003)
    adjustments.post(
        tenant=alice.tenant,
        cause=AdjustmentNote.Cause.SERVICE,
        amount_pico=10**12,
        months={date(2026, 3, 1): 10**12},
        reason="slow",
        created_by="ada",
        now=BOUGHT_AT,
    )
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")


def buy(alice: Person, times: int) -> None:
    TopUp.objects.bulk_create(
        TopUp(tenant=alice.tenant, net_cents=2_000, created_by="ada", created_at=BOUGHT_AT)
        for _ in range(times)
    )


@pytest.mark.usefixtures("documents")
@pytest.mark.parametrize(
    ("name", "shown_as", "model"),
    [
        ("invoices", "invoices", Invoice),
        ("adjustments", "adjustments", AdjustmentNote),
        ("credit-notes", "notes", CreditNote),
        ("purchases", "topups", TopUp),
    ],
)
def test_every_document_is_some_links_away(
    client: Client, alice: Person, name: str, shown_as: str, model: type[Invoice]
) -> None:
    # given
    more = MANY - model.objects.count()
    if model is TopUp:
        buy(alice, more)
    else:
        crowds.crowd(Transfer, MANY)
        crowds.crowd(CreditGrant, MANY)
        crowds.crowd(model, more)
    client.force_login(alice.user)

    # when: the list is followed to its end
    seen, sizes, query = [], [], ""
    while True:
        page = client.get(f"/billing/?{query}")
        rows = page.context[shown_as].rows
        seen += [row.pk for row in rows]
        sizes.append(len(rows))
        found = re.search(OLDER.format(name=name), unescape(page.content.decode()))
        if found is None:
            break
        query = found[1]

    # then
    assert seen == sorted(model.objects.values_list("pk", flat=True), reverse=True)
    assert sizes == [SHOWN_MAX, SHOWN_MAX, 3]


@pytest.mark.usefixtures("documents")
@pytest.mark.parametrize(
    "odd", ["x", "-1", "1e3", "9" * 40, "²", "1;DROP", "\N{ARABIC-INDIC DIGIT ONE}"]
)
def test_a_place_that_is_none_is_left_out(client: Client, alice: Person, odd: str) -> None:
    client.force_login(alice.user)

    page = client.get("/billing/", {"purchases": odd})

    assert len(page.context["topups"].rows) == 1


@pytest.mark.usefixtures("documents")
def test_a_long_list_costs_as_many_statements_as_a_short_one(client: Client, alice: Person) -> None:
    client.force_login(alice.user)
    counts = []
    for count in (2, MANY):
        buy(alice, count)
        with CaptureQueriesContext(
            connection,
        ) as asked:
            client.get("/billing/")
        counts.append(len(asked))

    assert counts[0] == counts[1]
