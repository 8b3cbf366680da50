"""The operators' page of rows that were altered since they were sealed, and of registers that are
wrong: what it was, says who."""

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from unfold.decorators import action, display
from unfold.widgets import UnfoldAdminTextInputWidget

from billing.admin.base_admin import HistoryAdmin, occurring, own_page
from billing.errors import BillingError
from billing.integrity import anchors, sealing
from billing.models import Finding

FINDINGS_MAX = 500


class ResolveForm(forms.Form):
    reason = forms.CharField(
        max_length=200,
        help_text="What altered the rows or the register, and why it may stay so.",
        widget=UnfoldAdminTextInputWidget,
    )


class FindingAdmin(HistoryAdmin):
    nothing_yet = "Nothing was found: no row was altered, and every register agrees with the books."
    list_display = ("found_at", "what", "first", "detail", "seen_at", "verdict", "resolved_by")
    list_filter = (("resolved_at", admin.EmptyFieldListFilter), occurring("what"))
    actions = ("resolve",)
    actions_list = ("anchor",)  # type: ignore[assignment]

    def has_resolve_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.change_finding")

    def has_anchor_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    @action(  # type: ignore[operator]
        description="Download an anchor", url_path="anchor", permissions=["anchor"]
    )
    def anchor(self, request: HttpRequest) -> HttpResponse:
        """What all sealed rows come to now, to be kept outside the database."""
        now = timezone.now()
        given = HttpResponse(anchors.text(anchors.heads(), now=now), content_type="text/plain")
        name = f"tokenhouse-anchor-{now:%Y-%m-%dT%H%M%SZ}.txt"
        given["Content-Disposition"] = f'attachment; filename="{name}"'
        return given

    @admin.action(description="Resolve, and say what it was…", permissions=["resolve"])
    def resolve(self, request: HttpRequest, chosen: "QuerySet[Finding]") -> HttpResponse | None:
        rows = list(chosen.filter(resolved_at=None).order_by("pk")[:FINDINGS_MAX])
        form = ResolveForm(request.POST if "_confirm" in request.POST else None)
        if form.is_valid() and self._resolved(request, rows, form.cleaned_data["reason"]):
            return None
        return own_page(
            self,
            request,
            "admin/resolve_findings.html",
            title="Findings",
            form=form,
            rows=rows,
        )

    def _resolved(self, request: HttpRequest, rows: list[Finding], reason: str) -> bool:
        try:
            done = sealing.resolve(
                [row.pk for row in rows],
                reason=reason,
                resolved_by=request.user.get_username(),
                now=timezone.now(),
            )
        except BillingError as refusal:
            self.message_user(request, f"Nothing was resolved: {refusal}", messages.ERROR)
            return False
        self.message_user(request, f"{done} findings are resolved.")
        return True

    @display(description="State", label={"resolved": "success", "open": "danger"})
    def verdict(self, finding: Finding) -> str:
        return "resolved" if finding.resolved_at else "open"
