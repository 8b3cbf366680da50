"""Celery's side of the gateway: refusals from the data plane's stream into Postgres."""

from celery import shared_task

from gateway import refusals
from gateway.snapshot_signal import connection
from providers.task_runs import run_alone


@shared_task
def record_refusals() -> None:
    run_alone("record_refusals", lambda _: refusals.record(connection()))
