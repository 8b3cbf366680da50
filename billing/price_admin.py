"""Prices in the admin console: versions, price lists and their rules, corrections."""

from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin import EmptyFieldListFilter, action
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from redis.exceptions import RedisError
from unfold.admin import TabularInline
from unfold.decorators import display
from unfold.widgets import UnfoldAdminDecimalFieldWidget

from billing import price_lists, price_proposals, prices, rerating
from billing.admin_pages import ReadOnlyAdmin, ServiceAdmin, dollars, dollars_per_million
from billing.errors import BillingError, PriceRefused
from billing.models import (
    Adjustment,
    PriceDisagreement,
    PriceList,
    PriceProposal,
    PriceRule,
    PriceVersion,
    ReRating,
    Tenant,
)
from billing.price_form import CorrectionForm, PriceForm
from billing.price_preview import preview
from billing.price_proposals import Decision
from billing.rates import CHANGE_PPM_MAX, CHANGE_PPM_MIN, Window, percent_text
from billing.rerating import Correction

WITHDRAW = "Withdraw: these skus have no price from now on"
END_RULES = "End: these rules hold no more from now on"
PPM_PER_PERCENT = 10_000
SHOWN_MAX = 200
REFUSALS_SHOWN_MAX = 10
APPROVE = "Approve: publish these prices"


class PriceVersionAdmin(ReadOnlyAdmin):
    """Versions never change; the button publishes a new one, after a look at what it changes."""

    list_display = (
        "sku", "terms", "state", "since", "until", "inward", "cached", "outward", "source",
    )  # fmt: skip
    list_filter = ("service_tier", "price_list", "free", "source")
    search_fields = ("sku__code",)
    list_select_related = ("sku", "price_list")
    ordering = ("-pk",)
    actions = ("withdraw",)

    def has_withdraw_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.change_priceversion")

    @action(description=WITHDRAW, permissions=["withdraw"])
    def withdraw(self, request: HttpRequest, chosen: QuerySet[PriceVersion]) -> None:
        skus = sorted(set(chosen.values_list("sku__code", flat=True)))
        closed = sum(prices.withdraw(sku_code=sku, at=timezone.now()) for sku in skus)
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
        context = {
            **self.admin_site.each_context(request),
            "title": "Publish a price",
            "form": form,
            "preview": shown,
            "opts": self.opts,
        }
        return TemplateResponse(request, "admin/publish_price.html", context)

    def publish(self, request: HttpRequest, form: PriceForm) -> HttpResponse:
        slot, asked, now = form.slot(), form.cleaned_data, timezone.now()
        try:
            if asked["valid_from"] and asked["valid_from"] < now:
                raise PriceRefused("a price does not begin in the past; correct a period instead")
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


class PriceListForm(forms.ModelForm):  # type: ignore[type-arg]
    class Meta:
        model = PriceList
        fields = ("kind", "name", "slug", "tenant")


class PriceListAdmin(ServiceAdmin):
    """Plans, tenants' own prices, and what suppliers charge; the prices come from rules."""

    form = PriceListForm
    refusals = (BillingError,)
    list_display = ("name", "kind", "tenant", "rules_in_force")
    list_filter = ("kind",)
    search_fields = ("name", "slug")
    ordering = ("kind", "name")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return obj is None and super().has_change_permission(request, obj)

    @display(description="Rules in force")
    def rules_in_force(self, price_list: PriceList) -> str:
        rules = price_list.rules.filter(ended_at=None).order_by("pattern")
        shown = (f"{r.pattern or 'everything'} {percent_text(r.change_ppm)}" for r in rules)
        return ", ".join(shown) or "none: list prices"


class PriceRuleForm(forms.ModelForm):  # type: ignore[type-arg]
    percent = forms.DecimalField(
        label="Change, %",
        min_value=CHANGE_PPM_MIN // PPM_PER_PERCENT,
        max_value=CHANGE_PPM_MAX // PPM_PER_PERCENT,
        decimal_places=4,
        max_digits=8,
        help_text="-20 is a discount of a fifth, 5 a margin of a twentieth.",
        widget=UnfoldAdminDecimalFieldWidget,
    )

    class Meta:
        model = PriceRule
        fields = ("price_list", "pattern", "note")


class PriceRuleAdmin(ServiceAdmin):
    """A rule is set, replaced by another of the same pattern, or ended; never edited."""

    form = PriceRuleForm
    refusals = (BillingError,)
    list_display = ("price_list", "what", "change", "begins_at", "ended_at", "recorded_by", "note")
    list_filter = ("price_list", "ended_at")
    search_fields = ("pattern",)
    list_select_related = ("price_list",)
    ordering = ("-pk",)
    actions = ("end_rules",)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return obj is None and super().has_change_permission(request, obj)

    def has_end_rules_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.add_pricerule")

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        change_ppm = int(form.cleaned_data["percent"] * PPM_PER_PERCENT)
        made = self._set(request, obj, change_ppm, note=obj.note)
        rule = PriceRule.objects.get(price_list=obj.price_list, pattern=obj.pattern, ended_at=None)
        self.take_over(obj, rule)
        self.message_user(request, f"{made} prices were made or ended by it.")

    @action(description=END_RULES, permissions=["end_rules"])
    def end_rules(self, request: HttpRequest, chosen: QuerySet[PriceRule]) -> None:
        rules = list(chosen.filter(ended_at=None).select_related("price_list"))
        for rule in rules:
            self._set(request, rule, None, note="ended in the admin console")
        self.message_user(request, f"{len(rules)} rules are ended.")

    def _set(
        self, request: HttpRequest, rule: PriceRule, change_ppm: int | None, *, note: str
    ) -> int:
        return price_lists.set_rule(
            price_list=rule.price_list,
            pattern=rule.pattern,
            change_ppm=change_ppm,
            actor=request.user.get_username(),
            now=timezone.now(),
            note=note,
        )

    @display(description="For", ordering="pattern")
    def what(self, rule: PriceRule) -> str:
        return rule.pattern or "everything"

    @display(description="Change", ordering="change_ppm")
    def change(self, rule: PriceRule) -> str:
        return percent_text(rule.change_ppm)


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

    list_display = ("created_at", "sku", "since", "until", "tenants", "reason", "created_by")
    search_fields = ("sku", "reason")
    ordering = ("-pk",)
    inlines = (AdjustmentInline,)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.add_rerating")

    @display(description="Tenants")
    def tenants(self, made: ReRating) -> int:
        return made.adjustments.count()

    def add_view(
        self,
        request: HttpRequest,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        form = CorrectionForm(request.POST or None)
        context: dict[str, Any] = {
            **self.admin_site.each_context(request),
            "title": "Correct a period's price",
            "form": form,
            "opts": self.opts,
        }
        if request.method == "POST" and form.is_valid():
            correction = _correction(form)
            try:
                if "_post" in request.POST:
                    return self._post(request, form, correction)
                context |= _shown(correction)
            except (BillingError, RedisError) as refusal:
                self.message_user(request, f"Nothing was posted: {refusal}", messages.ERROR)
        return TemplateResponse(request, "admin/correct_prices.html", context)

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


def _correction(form: CorrectionForm) -> Correction:
    asked = form.cleaned_data
    return Correction(
        sku=asked["sku"],
        slot=form.slot(),
        since=asked["since"],
        until=asked["until"],
        rates=form.rates(),
    )


def _shown(correction: Correction) -> dict[str, Any]:
    found = rerating.preview(correction, now=timezone.now())
    names = dict(
        Tenant.objects.filter(pk__in=[d.tenant_id for d in found]).values_list("pk", "name")
    )
    return {
        "rows": [(names[each.tenant_id], each) for each in found[:SHOWN_MAX]],
        "left_out": max(0, len(found) - SHOWN_MAX),
        "refund_pico": sum(max(0, each.credit_pico) for each in found),
        "owed_pico": -sum(min(0, each.credit_pico) for each in found),
        "previewed": True,
    }


class PriceProposalAdmin(ReadOnlyAdmin):
    """What imports would change: approved or rejected, row by row or many at once."""

    list_display = (
        "sku", "kind", "terms", "now", "proposed", "change", "begins", "source", "verdict",
        "decided_by", "decided_at",
    )  # fmt: skip
    list_filter = ("state", "kind", "service_tier", "source")
    search_fields = ("sku",)
    list_select_related = ("replaces",)
    ordering = ("-state", "sku", "pk")
    list_per_page = 200
    actions = ("approve", "reject")

    def has_decide_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("billing.change_priceproposal")

    @action(description=APPROVE, permissions=["decide"])
    def approve(self, request: HttpRequest, chosen: QuerySet[PriceProposal]) -> None:
        self._told(request, price_proposals.approve, chosen, "in force or scheduled")

    @action(description="Reject: do not propose this again", permissions=["decide"])
    def reject(self, request: HttpRequest, chosen: QuerySet[PriceProposal]) -> None:
        self._told(request, price_proposals.reject, chosen, "rejected")

    def _told(
        self,
        request: HttpRequest,
        decide: Callable[..., list[Decision]],
        chosen: QuerySet[PriceProposal],
        word: str,
    ) -> None:
        ids = list(chosen.values_list("pk", flat=True)[: price_proposals.DECIDED_MAX + 1])
        try:
            decisions = decide(ids, actor=request.user.get_username(), now=timezone.now())
        except BillingError as refusal:
            self.message_user(request, f"Nothing was changed: {refusal}", messages.ERROR)
            return
        refused = [decision for decision in decisions if decision.refusal]
        self.message_user(request, f"{len(decisions) - len(refused)} prices are {word}.")
        for decision in refused[:REFUSALS_SHOWN_MAX]:
            text = f"{decision.proposal.sku}: {decision.refusal}"
            self.message_user(request, text, messages.WARNING)

    @display(description="Terms")
    def terms(self, row: PriceProposal) -> str:
        return terms_of(row)

    @display(description="Now, $/M in / out")
    def now(self, row: PriceProposal) -> str:
        old = row.replaces
        return "none" if old is None else _in_and_out(old.input_pico, old.output_pico)

    @display(description="Proposed, $/M in / out")
    def proposed(self, row: PriceProposal) -> str:
        if row.rates is None:
            return "none: not sold any more"
        return _in_and_out(row.rates["input_pico"], row.rates["output_pico"])

    @display(description="Greatest change", ordering="change_ppm")
    def change(self, row: PriceProposal) -> str:
        return "—" if row.change_ppm is None else percent_text(row.change_ppm)

    @display(description="From", ordering="begins_at")
    def begins(self, row: PriceProposal) -> Any:
        return row.begins_at or "approval"

    @display(
        description="State",
        label={"pending": "info", "approved": "success", "rejected": "danger", "superseded": ""},
    )
    def verdict(self, row: PriceProposal) -> str:
        return row.state


class PriceDisagreementAdmin(ReadOnlyAdmin):
    """Rates that a second source states more than one per cent differently."""

    list_display = ("sku", "rate", "ours", "theirs", "source", "found_at", "seen_at", "ended_at")
    list_filter = (("ended_at", EmptyFieldListFilter), "source", "rate")
    search_fields = ("sku",)
    ordering = ("-seen_at", "sku")

    @display(description="Ours, $/M", ordering="ours_pico")
    def ours(self, row: PriceDisagreement) -> str:
        return dollars_per_million(row.ours_pico)

    @display(description="Theirs, $/M", ordering="theirs_pico")
    def theirs(self, row: PriceDisagreement) -> str:
        return dollars_per_million(row.theirs_pico)


def terms_of(row: PriceVersion | PriceProposal) -> str:
    """Tier, threshold and hours in words."""
    window = Window(row.from_minute, row.to_minute)
    parts = [row.get_service_tier_display().lower()]
    if row.context_over:
        parts.append(f"over {row.context_over:,} tokens")
    if not window.is_all_day:
        parts.append(str(window))
    return ", ".join(parts)


def _in_and_out(input_pico: int, output_pico: int) -> str:
    return f"{dollars_per_million(input_pico)} / {dollars_per_million(output_pico)}"
