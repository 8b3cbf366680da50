"""Credit that falls below a sum is told once per fall: by mail, by signed webhook, on the pages."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis
from django.core import mail
from django.db import IntegrityError, transaction
from django.test import Client
from django.utils import timezone

from billing import registers
from billing.credit import balances as credit
from billing.errors import LimitRefused
from billing.limits import alert_channels, credit_alerts
from billing.models import AlertDelivery, AuditEntry, CreditAlert, CreditThreshold
from gateway import tasks
from gateway.alerts import delivery
from tests.gateway.alerts.test_budget_alerts import Receiver, receiver
from tests.people import Person

__all__ = ["receiver"]

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
USD = 10**12


def threshold(person: Person, below_pico: int | None = 2 * USD) -> None:
    credit_alerts.set_threshold(tenant=person.tenant, below_pico=below_pico, actor="a", now=NOON)


def granted(client: redis.Redis, person: Person, usd: int) -> None:
    credit.grant(tenant=person.tenant, amount_pico=usd * USD, reason="test", created_by="test")
    credit.push(client, person.tenant.pk)


def spend(client: redis.Redis, person: Person, nano: int) -> None:
    key = registers.tenant_key(registers.shard_tag(person.tenant.pk), person.tenant.pk)
    client.hset(key, "spent", nano)


def look(client: redis.Redis) -> int:
    return credit_alerts.notice(client, now=NOON)


def test_a_fall_is_told_once_and_again_only_after_credit_was_added(
    alice: Person, charlie: Person, redis_client: redis.Redis
) -> None:
    # given five dollars, and a neighbour with a threshold of his own
    granted(redis_client, alice, 5)
    granted(redis_client, charlie, 5)
    threshold(alice)
    threshold(charlie)
    told = []
    # when it is spent, corrected by a little, and spent again
    for nano in (3_000_000_000, 3_000_000_001, 3_000_000_000, 3_500_000_000):
        spend(redis_client, alice, nano)
        told.append(look(redis_client))
    # and then two dollars are added, which is looked at, and spent
    granted(redis_client, alice, 2)
    told.append(look(redis_client))
    spend(redis_client, alice, 5_500_000_000)
    told += [look(redis_client), look(redis_client)]
    # then
    assert told == [0, 1, 0, 0, 0, 1, 0]
    first, second = CreditAlert.objects.order_by("pk")
    assert {first.tenant, second.tenant} == {alice.tenant}
    assert (first.left_pico, first.below_pico) == (2 * USD - 1000, 2 * USD)
    assert second.left_pico == 1_500_000_000_000


def test_too_little_added_credit_tells_nothing_new(
    alice: Person, redis_client: redis.Redis
) -> None:
    granted(redis_client, alice, 1)
    threshold(alice)
    assert look(redis_client) == 1
    granted(redis_client, alice, 1)
    spend(redis_client, alice, 1)
    assert look(redis_client) == 0


def test_what_open_requests_hold_counts_as_left(alice: Person, redis_client: redis.Redis) -> None:
    granted(redis_client, alice, 5)
    threshold(alice)
    key = registers.tenant_key(registers.shard_tag(alice.tenant.pk), alice.tenant.pk)
    redis_client.hset(key, "held", 5_000_000_000)
    assert look(redis_client) == 0


def test_credit_that_ends_is_a_fall(alice: Person, redis_client: redis.Redis) -> None:
    # given
    credit.grant(
        tenant=alice.tenant, amount_pico=5 * USD, reason="gift", created_by="test",
        expires_at=NOON + timedelta(hours=1), now=NOON,
    )  # fmt: skip
    credit.push(redis_client, alice.tenant.pk, NOON)
    threshold(alice)
    # when
    before = credit_alerts.notice(redis_client, now=NOON + timedelta(minutes=59))
    after = credit_alerts.notice(redis_client, now=NOON + timedelta(hours=1))
    # then
    assert (before, after) == (0, 1)
    assert int(CreditAlert.objects.get().left_pico) == 0


def test_a_register_that_is_not_there_says_nothing(
    alice: Person, redis_client: redis.Redis
) -> None:
    threshold(alice)
    assert look(redis_client) == 0


def test_mail_and_webhook_tell_the_same_and_the_hook_is_signed(
    alice: Person, redis_client: redis.Redis, settings: Any, receiver: Receiver
) -> None:
    # given
    settings.EMAIL_HOST = "mail.test"
    for kind, target in (("mail", "finance@aurora.test"), ("webhook", receiver.url)):
        alert_channels.add(tenant=alice.tenant, kind=kind, target=target, actor="alice", now=NOON)
    granted(redis_client, alice, 1)
    threshold(alice)
    # when
    tasks.tell_of_budgets()
    tasks.tell_of_budgets()
    # then
    (sent,) = mail.outbox
    assert sent.subject == "Credit below $2: Aurora"
    assert "$1 was left" in sent.body
    assert "/billing/" in sent.body
    ((headers, body),) = receiver.got
    said = json.loads(body)
    assert (said["type"], said["left_usd"], said["below_usd"]) == ("credit.low", "1", "2")
    stamp, _, signed = headers["x-tokenhouse-signature"].partition(",v1=")
    hook = AlertDelivery.objects.get(channel__kind="webhook").channel
    expected = delivery.signature(
        delivery.secret_of(hook), body, at_s=int(stamp.removeprefix("t="))
    )
    assert f"{stamp},v1={signed}" == expected


@pytest.mark.parametrize("below_pico", [0, -1, credit_alerts.BELOW_PICO_MAX + 1])
def test_a_threshold_that_makes_no_sense_is_refused(alice: Person, below_pico: int) -> None:
    with pytest.raises(LimitRefused):
        threshold(alice, below_pico)
    assert not CreditThreshold.objects.exists()


def test_a_tenant_sets_it_on_the_page_and_is_shown_it(
    alice: Person, redis_client: redis.Redis
) -> None:
    # given
    granted(redis_client, alice, 1)
    client = Client()
    client.force_login(alice.user)
    # when
    client.post("/budgets/low-credit/", {"below_usd": "2.50"})
    # then
    assert credit_alerts.threshold_pico(alice.tenant) == 2_500_000_000_000
    assert AuditEntry.objects.get(action="alert_credit.set").after == {"below_pico": 25 * 10**11}
    for page in ("/budgets/", "/billing/"):
        assert "Credit is running low" in client.get(page).content.decode()
    assert 'value="2.5"' in client.get("/budgets/").content.decode()
    # and with more credit it is gone, and with an empty field so is the threshold
    granted(redis_client, alice, 2)
    assert "Credit is running low" not in client.get("/billing/").content.decode()
    client.post("/budgets/low-credit/", {"below_usd": ""})
    assert not CreditThreshold.objects.exists()


@pytest.mark.parametrize("below", ["-1", "1e400", "many", "99999999999"])
def test_what_is_no_sum_changes_nothing(alice: Person, below: str, redis_client: Any) -> None:
    client = Client()
    client.force_login(alice.user)
    answer = client.post("/budgets/low-credit/", {"below_usd": below}, follow=True)
    assert "Nothing was changed" in answer.content.decode()
    assert not CreditThreshold.objects.exists()


def test_a_delivery_is_of_one_alert(alice: Person) -> None:
    channel = alert_channels.add(
        tenant=alice.tenant, kind="mail", target="a@b.test", actor="a", now=NOON
    )
    with pytest.raises(IntegrityError), transaction.atomic():
        AlertDelivery.objects.create(channel=channel, due_at=timezone.now() + timedelta(days=1))
