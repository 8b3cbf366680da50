"""The Celery application and its clockwork: which task runs how often, and in which queue.

Celery is transport. A task is a few lines that call a service of the app that owns the data. A
beat's message expires with its period, so that a worker that was away does not replay the time it
missed.
"""

import sys
from typing import Any, Final, TypedDict

from celery import Celery
from celery.schedules import schedule
from celery.signals import beat_init, worker_init

from gateway import env
from gateway.database import schema_check

# dotted path of the task -> (period in seconds, queue)
CLOCKWORK: Final[dict[str, tuple[float, str]]] = {
    "billing.tasks.drain_usage": (1, "money"),
    "billing.tasks.expire_holds": (10, "money"),
    "billing.tasks.push_credit": (5, "money"),
    "billing.tasks.take_up_refused_settles": (5, "boards"),
    "billing.tasks.check_invariants": (30, "boards"),
    "billing.tasks.refresh_call_profiles": (60, "boards"),
    "billing.tasks.audit_ledger": (86_400, "slow"),
    "billing.tasks.draft_invoices": (3600, "slow"),
    "billing.tasks.forget_sessions": (3600, "slow"),
    "billing.tasks.expire_credit": (60, "slow"),
    "billing.tasks.settle_quarantine": (3600, "slow"),
    "billing.tasks.post_rebates": (3600, "slow"),
    "billing.tasks.post_true_ups": (3600, "slow"),
    "gateway.tasks.recharge_credit": (60, "slow"),
    "gateway.tasks.read_price_sources": (3600, "slow"),
    "gateway.tasks.forget_old": (3600, "slow"),
    "gateway.tasks.tell_of_budgets": (30, "slow"),
    "providers.tasks.record_measurements": (1, "boards"),
    "providers.tasks.refresh_leaderboards": (5, "boards"),
    "providers.tasks.check_offers": (10, "boards"),
    "providers.tasks.true_up_lost_calls": (10, "boards"),
    "providers.tasks.publish_in_house_prices": (300, "boards"),
    "gateway.tasks.record_refusals": (1, "boards"),
}


class Options(TypedDict):
    queue: str
    expires: float


class BeatEntry(TypedDict):
    """What Celery's beat wants to know of a task."""

    task: str
    schedule: schedule
    options: Options


def _entry(task: str, period_s: float, queue: str) -> BeatEntry:
    return {
        "task": task,
        "schedule": schedule(run_every=period_s),
        "options": {"queue": queue, "expires": period_s},
    }


env.apply_defaults({"DJANGO_SETTINGS_MODULE": "gateway.settings"})
app = Celery("tokenhouse")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.conf.task_routes = {task: {"queue": queue} for task, (_, queue) in CLOCKWORK.items()}
app.conf.beat_schedule = {
    task: _entry(task, period_s, queue) for task, (period_s, queue) in CLOCKWORK.items()
}
app.autodiscover_tasks()


@worker_init.connect
@beat_init.connect
def refuse_newer_schema(**_: Any) -> None:
    """Ends the process with the reason; its supervisor tries again, in case it is put right."""
    try:
        schema_check.check()
    except schema_check.SchemaNewer as newer:
        sys.exit(str(newer))
