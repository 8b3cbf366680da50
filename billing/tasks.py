"""Billing's periodic tasks: transport only. What they do is in the services they call."""

from datetime import timedelta

from celery import shared_task
from django.conf import settings
from django.db import transaction

from billing import fault_isolation, locks
from billing.corrections import rebates, true_ups
from billing.credit import balances as credit
from billing.credit import grant_expiry
from billing.drain import metering
from billing.holding import call_profiles, expiry, sessions
from billing.integrity import invariants
from billing.invoicing import runs
from billing.operations import quarantine, rebuild, refused_settles, task_runs
from billing.redis.connection import connection

DRAIN = "billing.tasks.drain_usage"
EXPIRE = "billing.tasks.expire_holds"
PUSH = "billing.tasks.push_credit"
REFUSED = "billing.tasks.take_up_refused_settles"
CHECK = "billing.tasks.check_invariants"
PROFILES = "billing.tasks.refresh_call_profiles"
AUDIT = "billing.tasks.audit_ledger"
DRAFT = "billing.tasks.draft_invoices"
EXPIRE_CREDIT = "billing.tasks.expire_credit"
QUARANTINE = "billing.tasks.settle_quarantine"
REBATES = "billing.tasks.post_rebates"
TRUE_UPS = "billing.tasks.post_true_ups"
FORGET = "billing.tasks.forget_sessions"


@shared_task(name=DRAIN)
def drain_usage() -> None:
    """Drain every shard until it is empty; a cold one is rebuilt first."""
    with task_runs.recorded(DRAIN) as now:
        client = connection()
        rebuild.rebuild_cold(client, now=now)
        metering.drain_all(client, now=now)
        task_runs.note_lag(DRAIN, metering.lag_ms(client, now=now))


@shared_task(name=EXPIRE)
def expire_holds() -> None:
    """Sweep holds whose lease ran out."""
    with task_runs.recorded(EXPIRE) as now, transaction.atomic():
        if locks.is_only_run(EXPIRE):
            client = connection()
            expiry.expire_holds(client, now_ms=expiry.surely_past_ms(client, now=now))


@shared_task(name=PUSH)
def push_credit() -> None:
    """Tell Redis what it has not heard of credit: it was away, or not well."""
    with task_runs.recorded(PUSH):
        credit.push_stale(connection())


@shared_task(name=REFUSED)
def take_up_refused_settles() -> None:
    """Keep for people what data planes could not settle."""
    with task_runs.recorded(REFUSED) as now:
        refused_settles.take_up(connection(), now=now)


@shared_task(name=CHECK)
def check_invariants() -> None:
    """Check the ledger's invariants, and repeat pushes of credit that got lost."""
    with task_runs.recorded(CHECK) as now:
        client = connection()
        with fault_isolation.apart("credit that was not told"):
            credit.push_stale(client)
        invariants.check_all(client, now=now)


@shared_task(name=AUDIT)
def audit_ledger() -> None:
    """Check every row of the ledger, and the sums against them."""
    with task_runs.recorded(AUDIT) as now:
        invariants.audit(connection(), now=now)


@shared_task(name=DRAFT)
def draft_invoices() -> None:
    """Draft the month that ended, once late charges had a day to arrive."""
    with task_runs.recorded(DRAFT) as now:
        runs.draft_due(now=now)


@shared_task(name=EXPIRE_CREDIT)
def expire_credit() -> None:
    """Take back what is left of grants that have expired."""
    with task_runs.recorded(EXPIRE_CREDIT) as now, locks.alone(EXPIRE_CREDIT) as is_alone:
        if is_alone:
            grant_expiry.expire_grants(now=now)


@shared_task(name=QUARANTINE)
def settle_quarantine() -> None:
    """Settle at their estimates the quarantined events that nobody decided in time."""
    after = timedelta(days=settings.QUARANTINE_DAYS)
    with task_runs.recorded(QUARANTINE) as now:
        quarantine.settle_overdue(connection(), after=after, now=now)


@shared_task(name=REBATES)
def post_rebates() -> None:
    """Post last month's volume rebates, or what is off since they were posted."""
    with task_runs.recorded(REBATES) as now:
        rebates.post_due(now=now)


@shared_task(name=TRUE_UPS)
def post_true_ups() -> None:
    """Give back what estimates had charged beyond counts that came later."""
    with task_runs.recorded(TRUE_UPS) as now:
        true_ups.post_due(now=now)


@shared_task(name=PROFILES)
def refresh_call_profiles() -> None:
    """Count what calls used, for expected holds and quotes."""
    with task_runs.recorded(PROFILES) as now, transaction.atomic():
        if locks.is_only_run(PROFILES):
            call_profiles.refresh(now=now)


@shared_task(name=FORGET)
def forget_sessions() -> None:
    """Forget what sessions cost that are long over."""
    with task_runs.recorded(FORGET) as now:
        sessions.forget_over(now=now)
