"""Sellers in the admin console: who sells as which provider, the house's share, chargeback."""

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from unfold.decorators import display
from unfold.widgets import UnfoldAdminDecimalFieldWidget

from billing.admin.base_admin import ServiceAdmin
from billing.admin.units import dollars
from billing.books import earnings, payouts
from billing.errors import BillingError
from billing.models import Tenant
from billing.money import usd
from billing.rates import PPM_PER_PERCENT, percent_text
from gateway.admin import payout_page
from gateway.console.spreadsheet import csv_response
from gateway.models import Seller, Team
from gateway.tenants import sellers

HEAD = (
    "day", "seller", "sku", "buyer", "team", "requests", "input_tokens", "output_tokens",
    "buyer_paid_usd", "seller_credit_usd", "house_usd",
)  # fmt: skip


class SellerForm(forms.ModelForm):  # type: ignore[type-arg]
    share = forms.DecimalField(
        label="Share kept by the house, %",
        min_value=0,
        max_value=100,
        decimal_places=4,
        max_digits=7,
        widget=UnfoldAdminDecimalFieldWidget,
    )

    class Meta:
        model = Seller
        fields = ("team", "provider")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.pk:
            self.initial["share"] = Decimal(self.instance.house_share_ppm).scaleb(-4).normalize()


class SellerAdmin(ServiceAdmin):
    form = SellerForm
    refusals = (BillingError, sellers.SellerRefused)
    list_display = ("team", "provider", "share", "owed", "registered_at")
    list_select_related = ("team", "provider")
    autocomplete_fields = ("provider",)
    actions = ("record_payout", "chargeback")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return () if obj is None else ("team", "provider")

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        share_ppm = int(form.cleaned_data["share"] * PPM_PER_PERCENT)
        actor, now = request.user.get_username(), timezone.now()
        if change:
            sellers.set_share(seller=obj, house_share_ppm=share_ppm, actor=actor, now=now)
            return
        made = sellers.register(
            team=obj.team, provider=obj.provider, house_share_ppm=share_ppm, actor=actor, now=now
        )
        self.take_over(obj, made)

    def has_record_payout_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.add_payout")

    @admin.action(description="Record a payout…", permissions=["record_payout"])
    def record_payout(self, request: HttpRequest, chosen: QuerySet[Seller]) -> HttpResponse | None:
        return payout_page.record(self, request, chosen)

    @admin.action(description="Chargeback of the last 30 days, by buyer, as CSV")
    def chargeback(self, request: HttpRequest, chosen: QuerySet[Seller]) -> HttpResponse | None:
        now = timezone.now()
        found = [
            (seller.provider.slug, row)
            for seller in chosen.select_related("provider")
            for row in earnings.by_buyer(
                seller.provider.slug, since=now - timedelta(days=30), until=now
            )
        ]
        if not found:
            self.message_user(request, "Nothing was sold in the last 30 days.", messages.WARNING)
            return None
        tenants = dict(Tenant.objects.values_list("pk", "name"))
        teams = dict(Team.objects.values_list("pk", "name"))
        return csv_response(
            f"chargeback-{now:%Y-%m-%d}.csv",
            head=HEAD,
            rows=(
                (
                    row.day.isoformat(), slug, row.sku, tenants.get(row.tenant_id or 0, ""),
                    teams.get(row.team_id or 0, ""), row.requests, row.input_tokens,
                    row.output_tokens, f"{usd(row.paid_pico):f}", f"{usd(row.credit_pico):f}",
                    f"{usd(row.house_pico):f}",
                )
                for slug, row in found
            ),
        )  # fmt: skip

    @display(description="House keeps", ordering="house_share_ppm")
    def share(self, seller: Seller) -> str:
        return percent_text(seller.house_share_ppm).lstrip("+")

    def ask_once(self, rows: Sequence[Any]) -> None:
        owed = payouts.owed_to_each(seller.provider.slug for seller in rows)
        for seller in rows:
            seller.owed_pico = owed[seller.provider.slug]

    @display(description="Owed")
    def owed(self, seller: Any) -> str:
        return dollars(seller.owed_pico)
