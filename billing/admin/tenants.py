"""Tenants in the admin console: terms, plan, what is left to spend, and credit granted by hand."""

from collections.abc import Sequence
from typing import Any
from zoneinfo import available_timezones

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from redis.exceptions import RedisError
from unfold.widgets import UnfoldAdminDecimalFieldWidget, UnfoldAdminSelectWidget

from billing import audit
from billing.admin import plan_page
from billing.admin.base_admin import Growing, ServiceAdmin, months, own_page
from billing.admin.plans import OnPlan
from billing.admin.units import dollars
from billing.credit import balances as credit
from billing.errors import BillingError
from billing.holding import hold_modes
from billing.holding import open_holds as hold_queries
from billing.kinds import HoldMode
from billing.limits import quotas
from billing.models import CreditGrant, Tenant
from billing.money import pico_from_usd, usd
from billing.prices import plans


class TenantForm(forms.ModelForm):  # type: ignore[type-arg]
    credit_limit_usd = forms.DecimalField(
        label="Credit limit, $",
        min_value=0,
        max_value=10_000_000,
        decimal_places=12,
        max_digits=20,
        help_text="How far below zero the balance may go; 0 for prepaid tenants.",
        widget=UnfoldAdminDecimalFieldWidget,
        initial=0,
    )

    time_zone = forms.ChoiceField(
        choices=[(zone, zone) for zone in sorted(available_timezones())],
        initial="UTC",
        help_text="Budgets per day, week and month follow its calendar.",
        widget=UnfoldAdminSelectWidget,
    )
    overdraft_usd = forms.DecimalField(
        label="Overdraft, $",
        min_value=0,
        max_value=100_000,
        decimal_places=12,
        max_digits=18,
        help_text="Expected holds only: by how much spending may pass each limit at most.",
        widget=UnfoldAdminDecimalFieldWidget,
        initial=0,
    )

    class Meta:
        model = Tenant
        fields = ("name", "slug", "status", "time_zone", "max_output_tokens", "hold_mode")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.initial["credit_limit_usd"] = usd(self.instance.credit_limit_pico).normalize()
            self.initial["overdraft_usd"] = usd(self.instance.overdraft_pico).normalize()

    def clean(self) -> None:
        super().clean()
        stated = self.cleaned_data
        is_expected = stated.get("hold_mode") == HoldMode.EXPECTED
        if is_expected and not stated.get("overdraft_usd"):
            self.add_error("overdraft_usd", "Expected holds need an overdraft above zero.")


class TenantAdmin(ServiceAdmin):
    form = TenantForm
    refusals = (BillingError,)
    list_display = (
        "name", "slug", "status", "plan", "credit", "spent", "held", "left", "grant_link",
    )  # fmt: skip
    list_filter = ("status", OnPlan)
    search_fields = ("name", "slug")
    actions = ("put_on_plan",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Tenant]:
        return Tenant.objects.order_by("name")

    def has_put_on_plan_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.change_tenant")

    @admin.action(description=plan_page.PUT_ON_PLAN, permissions=["put_on_plan"])
    def put_on_plan(self, request: HttpRequest, chosen: QuerySet[Tenant]) -> HttpResponse | None:
        return plan_page.put_on_plan(self, request, chosen)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        wanted = {name: getattr(obj, name) for name in ("status", "time_zone", "hold_mode")}
        for name in wanted if change else ():
            setattr(obj, name, form.initial[name])
        obj.save()
        actor, now = request.user.get_username(), timezone.now()
        own = ("name", "slug", "max_output_tokens")
        audit.record(
            actor=actor,
            action="tenant.set",
            subject=obj.slug,
            tenant=obj,
            before={name: form.initial[name] for name in own} if change else None,
            after={name: getattr(obj, name) for name in own},
            now=now,
        )
        quotas.change_time_zone(tenant=obj, zone=wanted["time_zone"], actor=actor, now=now)
        hold_modes.set_hold_mode(
            tenant=obj,
            mode=wanted["hold_mode"],
            overdraft_pico=pico_from_usd(form.cleaned_data["overdraft_usd"]),
            actor=actor,
            now=now,
        )
        credit.change_terms(
            tenant=obj,
            actor=actor,
            now=now,
            credit_limit_pico=pico_from_usd(form.cleaned_data["credit_limit_usd"]),
            status=wanted["status"],
        )
        obj.refresh_from_db()

    @admin.display(description="Pays")
    def plan(self, tenant: Any) -> str:
        return str(tenant.plans_shown)

    @admin.display(description="Credit")
    def credit(self, tenant: Tenant) -> str:
        return self._part(tenant, "credit_pico")

    @admin.display(description="Spent")
    def spent(self, tenant: Tenant) -> str:
        return self._part(tenant, "spent_pico")

    @admin.display(description="Held")
    def held(self, tenant: Tenant) -> str:
        return self._part(tenant, "held_pico")

    @admin.display(description="Left")
    def left(self, tenant: Tenant) -> str:
        return self._part(tenant, "left_pico")

    def ask_once(self, rows: Sequence[Any]) -> None:
        try:
            found = credit.balances(rows)
        except RedisError:
            found = {}
        plans_shown = plans.texts(rows, timezone.now())
        for tenant in rows:
            tenant.left_to_spend = found.get(tenant.pk)
            tenant.plans_shown = plans_shown[tenant.pk]

    def _part(self, tenant: Any, name: str) -> str:
        known = tenant.left_to_spend
        return "unknown: Redis is away" if known is None else dollars(getattr(known, name))

    @admin.display(description="")
    def grant_link(self, tenant: Tenant) -> str:
        url = reverse("admin:billing_creditgrant_add")
        return format_html(
            '<a class="house-link" href="{}?tenant={}">Grant credit</a>', url, tenant.pk
        )

    def get_urls(self) -> list[URLPattern]:
        own = path(
            "open-holds/", self.admin_site.admin_view(self.open_holds), name="billing_open_holds"
        )
        return [own, *super().get_urls()]

    def open_holds(self, request: HttpRequest) -> HttpResponse:
        try:
            found, problem = hold_queries.open_holds(), ""
        except RedisError as error:
            found, problem = None, str(error)
        return own_page(
            self,
            request,
            "admin/open_holds.html",
            title="Open holds",
            holds=found,
            problem=problem,
            names=dict(Tenant.objects.values_list("pk", "name")),
        )


class GrantForm(forms.ModelForm):  # type: ignore[type-arg]
    amount_usd = forms.DecimalField(
        label="Amount, $",
        decimal_places=12,
        max_digits=20,
        help_text="Negative takes credit back.",
        widget=UnfoldAdminDecimalFieldWidget,
    )

    class Meta:
        model = CreditGrant
        fields = ("tenant", "reason", "expires_at")


class CreditGrantAdmin(Growing, ServiceAdmin):  # type: ignore[misc]
    form = GrantForm
    refusals = (BillingError,)
    list_display = (
        "created_at", "tenant", "amount", "expires_at", "reason", "created_by", "transfer",
    )  # fmt: skip
    list_filter = ("tenant", months("created_at"))
    list_select_related = ("tenant", "transfer")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        made = credit.grant(
            tenant=obj.tenant,
            amount_pico=pico_from_usd(form.cleaned_data["amount_usd"]),
            reason=obj.reason,
            created_by=request.user.get_username(),
            expires_at=obj.expires_at,
        )
        self.take_over(obj, made)

    @admin.display(description="Amount", ordering="amount_pico")
    def amount(self, grant: CreditGrant) -> str:
        return dollars(int(grant.amount_pico))
