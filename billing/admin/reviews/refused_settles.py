"""The admin page of settles that Redis refused for good: told again, or let go with a reason."""

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from redis.exceptions import RedisError
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextInputWidget

from billing.admin.base_admin import HistoryAdmin, own_page
from billing.admin.units import dollars
from billing.models import RefusedSettle
from billing.operations import refused_settles
from billing.redis.connection import connection

CHOSEN_MAX = 500


class LetGoForm(forms.Form):
    reason = forms.CharField(max_length=120, widget=UnfoldAdminTextInputWidget)


class RefusedSettleAdmin(HistoryAdmin):
    nothing_yet = "Redis has taken every settle."
    list_display = ("settled_at", "tenant", "request_id", "charge", "verdict", "reason")
    list_filter = ("state",)
    list_select_related = ("tenant",)
    search_fields = ("request_id",)
    id_column = "request_id"
    actions = ("tell_again", "let_go")
    exclude = ("record",)

    def has_resolve_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.change_refusedsettle")

    @admin.action(description="Tell Redis again", permissions=["resolve"])
    def tell_again(self, request: HttpRequest, chosen: "QuerySet[RefusedSettle]") -> None:
        try:
            answers = refused_settles.replay(
                connection(),
                [row.pk for row in chosen[:CHOSEN_MAX]],
                actor=request.user.get_username(),
                now=timezone.now(),
            )
        except RedisError as problem:
            self.message_user(request, f"Redis does not take them: {problem}", messages.ERROR)
            return
        for request_id, answer in answers.items():
            level = messages.SUCCESS if answer == refused_settles.BOOKED else messages.ERROR
            self.message_user(request, f"{request_id}: {answer}", level)

    @admin.action(description="Let go: the house pays…", permissions=["resolve"])
    def let_go(
        self, request: HttpRequest, chosen: "QuerySet[RefusedSettle]"
    ) -> HttpResponse | None:
        rows = list(chosen.filter(state=RefusedSettle.State.WAITING)[:CHOSEN_MAX])
        form = LetGoForm(request.POST if "_confirm" in request.POST else None)
        if form.is_valid():
            done = refused_settles.let_go(
                [row.pk for row in rows],
                actor=request.user.get_username(),
                reason=form.cleaned_data["reason"],
                now=timezone.now(),
            )
            self.message_user(request, f"{done} settles are let go; nobody is charged for them.")
            return None
        return own_page(
            self,
            request,
            "admin/let_go.html",
            title="Let refused settles go",
            form=form,
            rows=rows,
        )

    @admin.display(description="Charge", ordering="charge_pico")
    def charge(self, row: RefusedSettle) -> str:
        return dollars(int(row.charge_pico))

    @display(
        description="State", label={"waiting": "danger", "booked": "success", "let_go": "info"}
    )
    def verdict(self, row: RefusedSettle) -> tuple[str, str]:
        return row.state, row.get_state_display()
