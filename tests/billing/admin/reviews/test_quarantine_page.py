"""The admin's page for quarantined events: it shows, asks for a reason, and then posts."""

import pytest
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.test import Client

from billing.holding.holds import SettledAttempt
from billing.models import Account, UsageEvent
from tests.billing import desk as desks
from tests.billing.open_books import Books

PAGE = "/admin/billing/usageevent/"


@pytest.fixture
def doubtful(books: Books) -> UsageEvent:
    """An event without usage, debited at its hold of 1,000,000 nano-dollars."""
    request_id = books.desk.placed(hold_nano=1_000_000)
    body = desks.encode(books.desk.event(request_id, usage=None, cost_pico=0))
    books.desk.settle_events(request_id, [SettledAttempt(body, 1_000_000)])
    books.drain()
    return books.events()[0]


def asked(event: UsageEvent, **form: str) -> dict[str, str]:
    return {"action": "resolve", ACTION_CHECKBOX_NAME: str(event.pk), **form}


def test_nothing_is_posted_before_it_is_confirmed(
    books: Books, doubtful: UsageEvent, admin_client: Client
) -> None:
    # when
    page = admin_client.post(PAGE, asked(doubtful))
    # then
    assert page.status_code == 200
    assert "no usage where a count is due" in page.content.decode()
    doubtful.refresh_from_db()
    assert doubtful.state == "quarantined"


def test_a_confirmed_figure_is_posted_with_its_reason(
    books: Books, doubtful: UsageEvent, admin_client: Client
) -> None:
    # given
    form = {"_confirm": "1", "tenant_usd": "0.0003", "supplier_usd": "0", "reason": "their bill"}
    # when
    answer = admin_client.post(PAGE, asked(doubtful, **form))
    # then
    assert answer.status_code == 302
    doubtful.refresh_from_db()
    assert (doubtful.state, doubtful.tenant_cost_pico) == ("posted", 300_000_000)
    assert doubtful.transfer is not None
    assert doubtful.transfer.memo == "admin: their bill"
    assert books.account(Account.Kind.REVENUE) == -300_000_000
    assert books.balance().spent_pico == 300_000_000
    assert books.check() == {}


@pytest.mark.parametrize(
    "form",
    [
        {"tenant_usd": "0.0003", "supplier_usd": "0", "reason": ""},
        {"tenant_usd": "", "supplier_usd": "0", "reason": "their bill"},
        {"tenant_usd": "0.1", "supplier_usd": "0", "reason": "more than was debited"},
    ],
)
def test_a_form_without_reason_or_with_too_much_posts_nothing(
    books: Books, doubtful: UsageEvent, admin_client: Client, form: dict[str, str]
) -> None:
    # when
    page = admin_client.post(PAGE, asked(doubtful, _confirm="1", **form))
    # then
    assert page.status_code == 200
    doubtful.refresh_from_db()
    assert doubtful.state == "quarantined"
    assert books.balance().spent_pico == 1_000_000_000


def test_what_is_posted_already_cannot_be_chosen(books: Books, admin_client: Client) -> None:
    # given
    books.served()
    books.drain()
    (event,) = books.events()
    # when
    answer = admin_client.post(PAGE, asked(event), follow=True)
    # then
    assert "Choose 1 to 50 quarantined events" in answer.content.decode()
