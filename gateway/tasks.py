"""Celery's side of the gateway: transport only. What they do is in the services they call."""

from datetime import UTC, datetime

from celery import shared_task
from django.conf import settings

from billing import fault_isolation
from billing.limits import budget_alerts, credit_alerts
from billing.operations import task_runs
from billing.payments import messages as payment_messages
from billing.redis.connection import connection
from gateway import forgetting, price_sources, refusals
from gateway.alerts import delivery as alert_delivery
from gateway.payments import recharging
from providers.singleton_jobs import run_alone, run_in_turn

RECORD = "gateway.tasks.record_refusals"
RECHARGE = "gateway.tasks.recharge_credit"
BUDGETS = "gateway.tasks.tell_of_budgets"
PRICES = "gateway.tasks.read_price_sources"
FORGET = "gateway.tasks.forget_old"


@shared_task(name=RECORD)
def record_refusals() -> None:
    run_alone(RECORD, lambda _: refusals.record(connection()))


@shared_task(name=RECHARGE)
def recharge_credit() -> None:
    """Buy credit with saved cards, charged only once what is bought is written down for good; and
    try again the processor's messages that wait for their payment."""
    with task_runs.recorded(RECHARGE) as now:
        with fault_isolation.apart("purchases"):
            run_alone(RECHARGE, recharging.start_due)
        with fault_isolation.apart("payments"):
            recharging.ask_due(now)
        with fault_isolation.apart("messages"):
            payment_messages.retry_due(seller=settings.INVOICE_SELLER, now=now)


def _budgets(now: datetime) -> int:
    return budget_alerts.notice(connection(), now=now)


def _credit(now: datetime) -> int:
    return credit_alerts.notice(connection(), now=now)


@shared_task(name=BUDGETS)
def tell_of_budgets() -> None:
    """Notice budgets that fill up and credit that runs low, then deliver what is due."""
    with task_runs.recorded(BUDGETS):
        run_in_turn(BUDGETS, {"budgets": _budgets, "credit": _credit})
        with fault_isolation.apart("deliveries"):
            alert_delivery.deliver_due(now=datetime.now(UTC))


@shared_task(name=PRICES)
def read_price_sources() -> None:
    """Hold our prices against others', each source once a day."""
    with task_runs.recorded(PRICES) as now:
        price_sources.read_due(now=now)


@shared_task(name=FORGET)
def forget_old() -> None:
    """Forget refusals, alerts, sign-ins and messages that are past their time."""
    with task_runs.recorded(FORGET) as now:
        forgetting.forget_old(now=now)
