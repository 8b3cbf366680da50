"""Prices in the admin console: versions, price lists and their rules, corrections."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.contrib import messages
from django.contrib.admin import action
from django.db import transaction
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from redis.exceptions import RedisError
from unfold.admin import TabularInline
from unfold.decorators import display

from billing.admin.base_admin import HistoryAdmin, ReadOnlyAdmin, occurring, own_page
from billing.admin.price_form import CorrectionForm, PriceForm
from billing.admin.units import dollars, dollars_per_million
from billing.books import usage_sums
from billing.corrections import rerating
from billing.corrections.rerating import Correction, Difference, Untouched
from billing.errors import BillingError, PriceRefused
from billing.models import (
    Adjustment,
    PriceProposal,
    PriceVersion,
    ReRating,
    Tenant,
)
from billing.prices import versions as prices
from billing.prices.preview import preview
from billing.rates import Window, percent_text

WITHDRAW = "Withdraw: these skus have no price from now on"
SHOWN_MAX = 200
NAMED_MAX = 5


class PriceVersionAdmin(HistoryAdmin):
    """Versions never change; the button publishes a new one, after a look at what it changes."""

    nothing_yet = "No price is published yet. Publish one, or connect a price source."
    list_display = (
        "sku", "terms", "state", "since", "until", "inward", "cached", "outward", "source",
    )  # fmt: skip
    list_filter = ("service_tier", "price_list", "free", occurring("source"))
    search_fields = ("sku__code",)
    list_select_related = ("sku", "price_list")
    actions = ("withdraw",)

    def has_withdraw_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.change_priceversion")

    @action(description=WITHDRAW, permissions=["withdraw"])
    def withdraw(self, request: HttpRequest, chosen: QuerySet[PriceVersion]) -> None:
        skus = sorted(set(chosen.values_list("sku__code", flat=True)))
        actor, now = request.user.get_username(), timezone.now()
        closed = sum(prices.withdraw(sku_code=sku, at=now, actor=actor) for sku in skus)
        self.message_user(
            request,
            f"{closed} versions are closed. Offers of our own workers are priced by their "
            "calibration again within minutes; others are not sold until they are priced.",
        )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.add_priceversion")

    def add_view(
        self,
        request: HttpRequest,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        form = PriceForm(request.POST or None, initial={"sku": request.GET.get("sku", "")})
        shown = None
        if request.method == "POST" and form.is_valid():
            if "_publish" in request.POST:
                return self.publish(request, form)
            sku, slot, rates = form.cleaned_data["sku"], form.slot(), form.rates()
            shown = preview(sku, slot, rates, now=timezone.now())
        return own_page(
            self,
            request,
            "admin/publish_price.html",
            title="Publish a price",
            form=form,
            preview=shown,
        )

    def publish(self, request: HttpRequest, form: PriceForm) -> HttpResponse:
        slot, asked, now = form.slot(), form.cleaned_data, timezone.now()
        try:
            if asked["valid_from"] and asked["valid_from"] < now:
                raise PriceRefused(_in_the_past(asked["sku"], asked["valid_from"]))
            with transaction.atomic():
                version = prices.publish(
                    sku_code=asked["sku"],
                    valid_from=asked["valid_from"] or now,
                    source=prices.OPERATOR,
                    recorded_by=request.user.get_username(),
                    free=asked["free"],
                    note=asked["note"],
                    service_tier=slot.service_tier,
                    context_over=slot.context_over,
                    window=slot.window,
                    **dict(form.rates().items()),  # type: ignore[arg-type]
                )
                prices.record_set(version, actor=request.user.get_username(), now=now)
        except BillingError as refusal:
            self.message_user(request, f"Not published: {refusal}", messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())
        self.message_user(
            request,
            f"Version {version.pk} of {version.sku} is in force from "
            f"{version.during.lower:%Y-%m-%d %H:%M:%S} UTC.",
        )
        return HttpResponseRedirect(reverse("admin:billing_priceversion_changelist"))

    @display(description="State", label={"in force": "success", "closed": "", "coming": "info"})
    def state(self, version: PriceVersion) -> str:
        now = timezone.now()
        if version.during.lower > now:
            return "coming"
        return "closed" if version.during.upper and version.during.upper <= now else "in force"

    @display(description="Terms")
    def terms(self, version: PriceVersion) -> str:
        parts = [terms_of(version)]
        if version.price_list:
            parts.append(f"{version.price_list} {percent_text(version.change_ppm or 0)}")
        return ", ".join(parts)

    @display(description="Since", ordering="during")
    def since(self, version: PriceVersion) -> Any:
        return version.during.lower

    @display(description="Until")
    def until(self, version: PriceVersion) -> Any:
        return version.during.upper or "—"

    @display(description="Input, $/M", ordering="input_pico")
    def inward(self, version: PriceVersion) -> str:
        return dollars_per_million(version.input_pico)

    @display(description="Cached, $/M", ordering="cache_read_pico")
    def cached(self, version: PriceVersion) -> str:
        return dollars_per_million(version.cache_read_pico)

    @display(description="Output, $/M", ordering="output_pico")
    def outward(self, version: PriceVersion) -> str:
        return dollars_per_million(version.output_pico)


class AdjustmentInline(TabularInline):
    model = Adjustment
    extra = 0
    fields = readonly_fields = ("tenant", "events", "charged", "corrected", "grant")
    can_delete = False

    @display(description="Charged")
    def charged(self, adjustment: Adjustment) -> str:
        return dollars(int(adjustment.charged_pico))

    @display(description="Corrected to")
    def corrected(self, adjustment: Adjustment) -> str:
        return dollars(int(adjustment.corrected_pico))

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class ReRatingAdmin(ReadOnlyAdmin):
    """Corrections that were posted; the button previews another and posts it once confirmed."""

    nothing_yet = "No price was corrected for past requests. A price's page does it."
    list_display = ("created_at", "sku", "since", "until", "tenants", "reason", "created_by")
    search_fields = ("sku", "reason")
    ordering = ("-pk",)
    inlines = (AdjustmentInline,)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.add_rerating")

    def get_queryset(self, request: HttpRequest) -> QuerySet[ReRating]:
        return ReRating.objects.annotate(tenants=Count("adjustments"))

    @display(description="Tenants")
    def tenants(self, made: Any) -> int:
        return int(made.tenants)

    def add_view(
        self,
        request: HttpRequest,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        form = CorrectionForm(request.POST or None)
        shown: Shown | None = None
        if request.method == "POST" and form.is_valid():
            correction = _correction(form)
            try:
                if "_post" in request.POST:
                    return self._post(request, form, correction)
                shown = _shown(correction)
            except (BillingError, RedisError) as refusal:
                self.message_user(request, f"Nothing was posted: {refusal}", messages.ERROR)
        title = "Correct a period's price"
        page = "admin/correct_prices.html"
        return own_page(self, request, page, title=title, form=form, shown=shown)

    def _post(
        self, request: HttpRequest, form: CorrectionForm, correction: Correction
    ) -> HttpResponse:
        made = rerating.post(
            correction,
            charges_more=form.cleaned_data["charges_more"],
            reason=form.cleaned_data["reason"],
            created_by=request.user.get_username(),
            now=timezone.now(),
        )
        self.message_user(request, f"{made} is posted for {made.adjustments.count()} tenants.")
        return HttpResponseRedirect(reverse("admin:billing_rerating_change", args=[made.pk]))


def _in_the_past(sku: str, since: datetime) -> str:
    """Why a price does not begin there: whose events it would not touch."""
    charged = usage_sums.charged_since(sku, since=since, at_most=NAMED_MAX + 1)
    said = "; ".join(
        f"{name}: {attempts:,} for {dollars(pico)}" for name, attempts, pico in charged[:NAMED_MAX]
    )
    more = "; and others" if len(charged) > NAMED_MAX else ""
    whose = f"It would not touch what was charged since that hour ({said}{more})." if said else ""
    return f"a price does not begin in the past; correct a period instead. {whose}".strip()


def _correction(form: CorrectionForm) -> Correction:
    asked = form.cleaned_data
    return Correction(
        sku=asked["sku"],
        slot=form.slot(),
        since=asked["since"],
        until=asked["until"],
        rates=form.rates(),
    )


@dataclass(frozen=True, slots=True)
class Shown:
    """What a correction would post, by the tenants' names, and what it does not touch."""

    rows: list[tuple[str, Difference]]
    left_out: int
    refund_pico: int
    owed_pico: int
    untouched: list[tuple[str, Untouched]]


def _shown(correction: Correction) -> Shown:
    found = rerating.preview(correction, now=timezone.now())
    left = rerating.untouched(correction)
    concerned = {d.tenant_id for d in found} | {each.tenant_id for each in left}
    names = dict(Tenant.objects.filter(pk__in=concerned).values_list("pk", "name"))
    return Shown(
        rows=[(names[each.tenant_id], each) for each in found[:SHOWN_MAX]],
        left_out=max(0, len(found) - SHOWN_MAX),
        refund_pico=sum(max(0, each.credit_pico) for each in found),
        owed_pico=-sum(min(0, each.credit_pico) for each in found),
        untouched=[(names[each.tenant_id], each) for each in left[:SHOWN_MAX]],
    )


def terms_of(row: PriceVersion | PriceProposal) -> str:
    """Tier, threshold and hours in words."""
    window = Window(row.from_minute, row.to_minute)
    parts = [row.get_service_tier_display().lower()]
    if row.context_over:
        parts.append(f"over {row.context_over:,} tokens")
    if not window.is_all_day:
        parts.append(str(window))
    return ", ".join(parts)
