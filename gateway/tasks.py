"""Celery's side of the gateway: refusals from the data plane's stream into Postgres."""

from celery import shared_task

from billing.redis_connection import connection
from gateway import refusals
from providers.task_runs import run_alone

RECORD = "gateway.tasks.record_refusals"


@shared_task(name=RECORD)
def record_refusals() -> None:
    run_alone(RECORD, lambda _: refusals.record(connection()))
