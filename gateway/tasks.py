"""Celery's side of the gateway: refusals from the data plane's stream into Postgres."""

from datetime import UTC, datetime

from celery import shared_task

from billing.redis_connection import connection
from gateway import refusals
from gateway.payments import recharging
from providers.task_runs import run_alone

RECORD = "gateway.tasks.record_refusals"
RECHARGE = "gateway.tasks.recharge_credit"


@shared_task(name=RECORD)
def record_refusals() -> None:
    run_alone(RECORD, lambda _: refusals.record(connection()))


@shared_task(name=RECHARGE)
def recharge_credit() -> None:
    """Buy credit with saved cards; charged only once what is bought is written down for good."""
    started = run_alone(RECHARGE, recharging.start_due)
    recharging.charge(started or [], now=datetime.now(UTC))
