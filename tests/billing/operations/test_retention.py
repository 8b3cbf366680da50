"""What is past its time goes, in bounded batches; what is money, open or younger stays."""

from datetime import UTC, datetime, timedelta

import pytest
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import IntegrityError, connection, transaction

from billing import audit
from billing.models import (
    AlertChannel,
    AlertDelivery,
    AuditEntry,
    BudgetAlert,
    CreditAlert,
    ProcessorEvent,
    Tenant,
)
from billing.operations import retention
from gateway import forgetting
from gateway.celery import CLOCKWORK
from gateway.models import Refusal
from gateway.tasks import FORGET
from tests.gateway.console_rows import refused

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)

pytestmark = pytest.mark.django_db


@pytest.fixture
def tenant() -> Tenant:
    return Tenant.objects.create(slug="acme", name="Acme")


def days_ago(days: int) -> datetime:
    return NOW - timedelta(days=days)


def test_refusals_are_kept_to_the_second(tenant: Tenant) -> None:
    # given
    border = days_ago(settings.REFUSALS_DAYS)
    refused(tenant, at=border - SECOND)
    stays = refused(tenant, at=border)

    # when
    forgetting.forget_old(now=NOW)

    # then
    assert list(Refusal.objects.all()) == [stays]
    assert FORGET in CLOCKWORK


def test_a_run_is_bounded_and_the_next_goes_on(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given seven that are past, in batches of two, two batches a run
    monkeypatch.setattr(retention, "BATCH", 2)
    monkeypatch.setattr(retention, "BATCHES_PER_RUN_MAX", 2)
    for second in range(7):
        refused(tenant, at=days_ago(800) + second * SECOND)

    # when / then
    left = []
    for _ in range(3):
        retention.forget(forgetting.of_gateway(), now=NOW)
        left.append(Refusal.objects.count())
    assert left == [3, 0, 0]


def test_sign_ins_go_when_they_have_ended() -> None:
    for name, ends in (("over", NOW - SECOND), ("open", NOW + SECOND)):
        Session.objects.create(session_key=name, session_data="", expire_date=ends)

    forgetting.forget_old(now=NOW)

    assert list(Session.objects.values_list("session_key", flat=True)) == ["open"]


def test_alerts_go_with_their_deliveries_but_those_told_for_good_stay(tenant: Tenant) -> None:
    # given
    channel = AlertChannel.objects.create(
        tenant=tenant, kind="mail", target="a@example.org", created_by="a", created_at=NOW
    )
    buckets = {"2025-09": days_ago(401), "lifetime": days_ago(401), "2026-11": days_ago(1)}
    for bucket, at in buckets.items():
        alert = BudgetAlert.objects.create(
            tenant=tenant, quota_id=1, bucket=bucket, percent=80, subject="team",
            spent_pico=8, limit_pico=10, occurred_at=at,
        )  # fmt: skip
        AlertDelivery.objects.create(alert=alert, channel=channel)
    CreditAlert.objects.create(tenant=tenant, below_pico=1, left_pico=0, occurred_at=days_ago(401))

    # when
    forgetting.forget_old(now=NOW)

    # then
    assert set(BudgetAlert.objects.values_list("bucket", flat=True)) == {"lifetime", "2026-11"}
    assert AlertDelivery.objects.count() == 2
    assert not CreditAlert.objects.exists()


def test_a_processors_message_that_waits_is_never_too_old() -> None:
    for state in ProcessorEvent.State.values:
        ProcessorEvent.objects.create(
            event_id=state, kind="k", body_hash=b"", state=state, outcome="",
            received_at=days_ago(800),
        )  # fmt: skip

    forgetting.forget_old(now=NOW)

    assert set(ProcessorEvent.objects.values_list("state", flat=True)) == {"waiting", "review"}


def record(at: datetime, subject: str) -> None:
    with transaction.atomic():
        audit.record(actor="alice", action="quota.set", subject=subject, now=at)


def test_the_audit_log_is_kept_for_its_years_and_says_what_went() -> None:
    # given
    border = days_ago(settings.AUDIT_DAYS)
    record(border - SECOND, "old")
    record(border, "young")

    # when
    forgetting.forget_old(now=NOW)

    # then
    said = list(AuditEntry.objects.order_by("pk").values_list("actor", "action", "subject"))
    assert said == [
        ("alice", "quota.set", "young"),
        ("retention", "audit.forget", "entries of before 30 Nov 2019: 1"),
    ]


@pytest.mark.parametrize(
    ("until", "age"), [(None, 3_000), (days_ago(3_100), 3_000), (NOW + timedelta(days=9), 300)]
)
def test_postgres_lets_go_of_no_entry_that_is_young_or_not_said_to_be_forgotten(
    until: datetime | None, age: int
) -> None:
    # given
    record(datetime.now(UTC) - timedelta(days=age), "stands")
    # when
    with transaction.atomic():
        if until is not None:
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT set_config('tokenhouse.audit_forgotten_until', %s, true)",
                    [until.isoformat()],
                )
        with pytest.raises(IntegrityError, match="append-only"), transaction.atomic():
            AuditEntry.objects.all().delete()
    # then
    assert AuditEntry.objects.count() == 1
