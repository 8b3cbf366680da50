"""Budgets, rate limits and low credit in the admin console. The gateway registers the first two,
for it knows teams and keys by name."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Prefetch, QuerySet
from django.http import HttpRequest
from django.utils import timezone
from redis.exceptions import RedisError
from unfold.decorators import display
from unfold.widgets import UnfoldAdminDecimalFieldWidget, UnfoldAdminTextInputWidget

from billing.admin.base_admin import HistoryAdmin, ServiceAdmin
from billing.admin.units import dollars
from billing.errors import BillingError, LimitRefused
from billing.limits import quotas
from billing.limits.quotas import Cap
from billing.models import AlertDelivery, CreditAlert, Quota
from billing.money import pico_from_usd


class QuotaForm(forms.ModelForm):  # type: ignore[type-arg]
    limit_usd = forms.DecimalField(
        label="Limit, $",
        min_value=0,
        decimal_places=12,
        max_digits=20,
        widget=UnfoldAdminDecimalFieldWidget,
    )
    scope_id = forms.CharField(
        max_length=200,
        help_text="A team's or key's number, a model's or provider's name; "
        "the tenant's number for the tenant and for its sessions.",
        widget=UnfoldAdminTextInputWidget,
    )

    class Meta:
        model = Quota
        fields = ("tenant", "scope_kind", "scope_id", "window", "shadow")


class QuotaAdmin(ServiceAdmin):
    form = QuotaForm
    refusals = (BillingError, RedisError)
    list_filter = ("tenant", "scope_kind", "window", "shadow")
    search_fields = ("scope_id",)
    list_select_related = ("tenant",)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("billing.delete_quota")

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        made = quotas.set_quota(
            tenant=obj.tenant,
            cap=Cap(
                scope_kind=obj.scope_kind,
                scope_id=obj.scope_id,
                window=obj.window,
                limit_pico=pico_from_usd(form.cleaned_data["limit_usd"]),
                shadow=obj.shadow,
            ),
            actor=request.user.get_username(),
            now=timezone.now(),
        )
        self.take_over(obj, made)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        quotas.remove_quota(
            tenant=obj.tenant,
            quota_id=obj.pk,
            actor=request.user.get_username(),
            now=timezone.now(),
        )

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        for quota in queryset.select_related("tenant"):
            self.delete_model(request, quota)

    @admin.display(description="Limit", ordering="limit_pico")
    def limit(self, quota: Quota) -> str:
        return dollars(int(quota.limit_pico))

    @admin.display(description="Raised")
    def raised(self, quota: Quota) -> str:
        if quota.raised_until is None or quota.raised_until <= timezone.now():
            return ""
        return (
            f"{dollars(quota.limit_at(timezone.now()))} until {quota.raised_until:%Y-%m-%d %H:%M}"
        )


class CreditAlertAdmin(HistoryAdmin):
    """Whose credit fell below the sum it named, and whether it was told."""

    nothing_yet = "No tenant has asked to be told when its credit runs low."
    list_display = ("occurred_at", "tenant", "left", "below", "told")
    list_filter = ("tenant",)
    list_select_related = ("tenant",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[CreditAlert]:
        told = AlertDelivery.objects.select_related("channel").order_by("pk")
        return CreditAlert.objects.prefetch_related(Prefetch("deliveries", told))

    @display(description="Was left")
    def left(self, alert: CreditAlert) -> str:
        return dollars(int(alert.left_pico))

    @display(description="Threshold")
    def below(self, alert: CreditAlert) -> str:
        return dollars(int(alert.below_pico))

    @display(description="Told")
    def told(self, alert: CreditAlert) -> str:
        found = alert.deliveries.all()
        shown = (f"{d.channel}: {d.failure or d.delivered_at or 'on its way'}" for d in found)
        return "; ".join(shown) or "nobody: it has no channel"


class RateLimitAdmin(ServiceAdmin):
    refusals = (BillingError,)
    list_filter = ("tenant", "scope_kind")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return () if obj is None else ("tenant", "scope_kind", "scope_id")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("billing.delete_ratelimit")

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        made = quotas.set_rate_limit(
            tenant=obj.tenant,
            scope_kind=obj.scope_kind,
            scope_id=obj.scope_id,
            rpm=obj.rpm,
            tpm=obj.tpm,
            concurrency=obj.concurrency,
            actor=request.user.get_username(),
            now=timezone.now(),
        )
        if made is None:
            raise LimitRefused("a rate limit without any limit is none; delete it instead")
        self.take_over(obj, made)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        quotas.set_rate_limit(
            tenant=obj.tenant,
            scope_kind=obj.scope_kind,
            scope_id=obj.scope_id,
            actor=request.user.get_username(),
            now=timezone.now(),
        )

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        for limit in queryset.select_related("tenant"):
            self.delete_model(request, limit)
