"""How the house runs, in the admin console: invariants of the books, and the periodic tasks."""

from django.contrib import admin
from unfold.decorators import display

from billing.admin.base_admin import ReadOnlyAdmin
from billing.models import InvariantCheck, TaskRun


class InvariantCheckAdmin(ReadOnlyAdmin):
    nothing_yet = "No check has run yet: the jobs run them every half minute."
    list_display = ("name", "verdict", "detail", "checked_at")
    ordering = ("holds", "name")

    @display(description="Result", label={"holds": "success", "BROKEN": "danger"})
    def verdict(self, check: InvariantCheck) -> str:
        return "holds" if check.holds else "BROKEN"


class TaskRunAdmin(ReadOnlyAdmin):
    nothing_yet = "No job has run yet: look whether the workers of the queues are up."
    list_display = ("name", "started_at", "took", "lag", "last_failure")
    ordering = ("name",)

    @admin.display(description="Took")
    def took(self, run: TaskRun) -> str:
        if run.finished_at is None:
            return "running"
        return f"{(run.finished_at - run.started_at).total_seconds() * 1000:,.0f} ms"

    @admin.display(description="Late by", ordering="lag_ms")
    def lag(self, run: TaskRun) -> str:
        return f"{run.lag_ms:,} ms"

    @admin.display(description="Last failure")
    def last_failure(self, run: TaskRun) -> str:
        return f"{run.failed_at:%Y-%m-%d %H:%M:%S}: {run.failure}" if run.failed_at else "none"
