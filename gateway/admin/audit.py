"""The audit log in the admin console, with teams and keys by their names."""

from collections.abc import Sequence
from typing import Any

from django.contrib import admin

from billing.admin.base_admin import HistoryAdmin, occurring, two_lines
from billing.models import AuditEntry
from gateway.tenants import audit_lines


class AuditEntryAdmin(HistoryAdmin):
    nothing_yet = "Nobody has changed anything yet."
    list_display = ("occurred_at", "who", "what", "change", "reason")
    list_filter = (occurring("action"), "tenant")
    list_select_related = ("tenant",)
    search_fields = ("actor", "subject", "reason")

    def ask_once(self, rows: Sequence[Any]) -> None:
        for line in audit_lines.read(rows):
            line.entry.line = line  # type: ignore[attr-defined]

    @admin.display(description="Who, tenant")
    def who(self, entry: AuditEntry) -> str:
        return two_lines(entry.actor, entry.tenant.name if entry.tenant else "the house")

    @admin.display(description="What")
    def what(self, entry: AuditEntry) -> str:
        return two_lines(entry.action.replace("_", " "), _line(entry).subject)

    @admin.display(description="Change")
    def change(self, entry: AuditEntry) -> str:
        return _line(entry).change


def _line(entry: AuditEntry) -> audit_lines.AuditLine:
    known: audit_lines.AuditLine | None = getattr(entry, "line", None)
    return known or audit_lines.read([entry])[0]
