"""A seller that claims more than was asked of it: kept for review, owed nothing until then."""

from datetime import timedelta

import pytest
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.test import Client

from billing.books import claims
from billing.errors import CreditRefused
from billing.holding.holds import SettledAttempt
from billing.integrity import invariants
from billing.models import Account, Claim, InvariantCheck, UsageDay
from billing.usage import CanonicalUsage
from tests.billing import desk as desks
from tests.billing.open_books import Books

PAGE = "/admin/billing/claim/"
ESTIMATE_PICO = 20 * desks.INPUT_PICO + 4 * desks.OUTPUT_PICO


@pytest.fixture
def claim(books: Books) -> Claim:
    """Ten billion tokens claimed where 50 were asked for; 24 were billed."""
    request_id = books.desk.placed(hold_nano=1_000_000)
    made = books.desk.event(request_id, usage=(20, 4))
    made.problem = "claims 10,000,000,000 output tokens; 50 were asked for"
    made.claimed = CanonicalUsage(input_tokens=20, output_tokens=10**10)
    body = desks.encode(made)
    books.desk.settle_events(request_id, [SettledAttempt(body, -(-ESTIMATE_PICO // 1000))])
    books.drain()
    return Claim.objects.get()


def alarm(books: Books) -> tuple[bool, str]:
    invariants.check_all(books.desk.client, now=desks.at(books.desk.now_ms))
    check = InvariantCheck.objects.get(name=claims.WITHIN_ASKED)
    return check.holds, check.detail


def test_a_claim_is_neither_revenue_nor_owed_and_raises_an_alarm(
    books: Books, claim: Claim
) -> None:
    # then: the tenant pays the estimate
    (event,) = books.events()
    assert (event.state, event.tenant_cost_pico, event.overage_pico) == ("posted", ESTIMATE_PICO, 0)
    assert books.account(Account.Kind.REVENUE) == -ESTIMATE_PICO
    assert books.account(Account.Kind.PROVIDER_PAYABLE, supplier="acme") == 0
    assert books.account(Account.Kind.OVERAGE_REVIEW, tenant=True) == 0
    assert books.balance().spent_pico == ESTIMATE_PICO
    assert UsageDay.objects.get().output_tokens == 4
    assert (claim.claimed_output_tokens, claim.billed_output_tokens) == (10**10, 4)
    assert alarm(books)[0] is False
    assert "claims 10,000,000,000 output tokens" in alarm(books)[1]


def test_the_same_event_again_opens_no_second_claim(books: Books, claim: Claim) -> None:
    # given: read again, as after a crash before the acknowledgement
    books.desk.client.xgroup_setid(f"usage:{books.desk.tag}", "ledger", "0")
    # when
    books.drain()
    # then
    assert Claim.objects.count() == 1


def test_what_an_operator_decides_is_owed_once_and_ends_the_alarm(
    books: Books, claim: Claim, admin_client: Client
) -> None:
    # given
    form = {"action": "decide", ACTION_CHECKBOX_NAME: str(claim.pk)}
    # when
    shown = admin_client.post(PAGE, form)
    owed_before = books.account(Account.Kind.PROVIDER_PAYABLE, supplier="acme")
    answer = admin_client.post(
        PAGE, {**form, "_confirm": "1", "owed_usd": "0.00007", "reason": "what they delivered"}
    )
    # then
    assert "claims 10,000,000,000 output tokens" in shown.content.decode()
    assert (owed_before, answer.status_code) == (0, 302)
    claim.refresh_from_db()
    assert (claim.decided_by, claim.owed_pico) == ("admin", 70_000_000)
    assert books.account(Account.Kind.PROVIDER_PAYABLE, supplier="acme") == -70_000_000
    assert books.account(Account.Kind.REVENUE) == -ESTIMATE_PICO
    assert alarm(books) == (True, "")
    assert books.check() == {}


def test_a_claim_is_decided_once_with_a_reason(books: Books, claim: Claim) -> None:
    # given
    now = desks.at(books.desk.now_ms) + timedelta(hours=1)
    # when / then
    for reason, owed_pico in (("", 5), ("a refund?", -1)):
        with pytest.raises(CreditRefused):
            claims.decide_all(
                claim_ids=[claim.pk], owed_pico=owed_pico, decided_by="ada", reason=reason, now=now
            )
    claims.decide_all(
        claim_ids=[claim.pk], owed_pico=0, decided_by="ada", reason="nonsense", now=now
    )
    with pytest.raises(CreditRefused, match="it is decided"):
        claims.decide_all(
            claim_ids=[claim.pk], owed_pico=5, decided_by="ada", reason="again", now=now
        )
    assert books.account(Account.Kind.PROVIDER_PAYABLE, supplier="acme") == 0
