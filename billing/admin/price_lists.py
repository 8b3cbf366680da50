"""Price lists and their rules, and what imports propose, in the admin console."""

from collections.abc import Callable, Sequence
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin import EmptyFieldListFilter, action
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from unfold.decorators import display
from unfold.widgets import UnfoldAdminDecimalFieldWidget

from billing.admin import units as admin_units
from billing.admin.base_admin import ReadOnlyAdmin, ServiceAdmin, own_page
from billing.admin.plan_page import rules_texts
from billing.admin.prices import terms_of
from billing.admin.units import dollars_per_million
from billing.errors import BillingError
from billing.models import PriceDisagreement, PriceList, PriceProposal, PriceRule
from billing.prices import lists as price_lists
from billing.prices import proposals as price_proposals
from billing.prices import rule_preview
from billing.prices.proposals import Decision
from billing.rates import CHANGE_PPM_MAX, CHANGE_PPM_MIN, PPM_PER_PERCENT, percent_text

END_RULES = "End: these rules hold no more from now on"
APPROVE = "Approve: publish these prices"
REFUSALS_SHOWN_MAX = 10


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

    def ask_once(self, rows: Sequence[Any]) -> None:
        texts = rules_texts(rows)
        for price_list in rows:
            price_list.rules_text = texts[price_list.pk]

    @display(description="Rules in force")
    def rules_in_force(self, price_list: Any) -> str:
        return str(price_list.rules_text)


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

    def add_view(
        self,
        request: HttpRequest,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """The form; asked for, what the rule would make of which prices, and for whom."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        shown = None
        if "_preview" in request.POST:
            form = PriceRuleForm(request.POST)
            try:
                shown = _previewed(form) if form.is_valid() else None
            except BillingError as refusal:
                self.message_user(request, f"Nothing would be changed: {refusal}", messages.ERROR)
        elif request.method == "POST":
            return super().add_view(request, form_url, extra_context)
        else:
            form = PriceRuleForm()
        return own_page(
            self,
            request,
            "admin/set_rule.html",
            title="Set a discount or margin",
            form=form,
            preview=shown,
        )

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        change_ppm = _change_ppm(form)
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


def _change_ppm(form: PriceRuleForm) -> int:
    return int(form.cleaned_data["percent"] * PPM_PER_PERCENT)


def _previewed(form: PriceRuleForm) -> rule_preview.RulePreview:
    return rule_preview.preview(
        price_list=form.cleaned_data["price_list"],
        pattern=form.cleaned_data["pattern"],
        change_ppm=_change_ppm(form),
        now=timezone.now(),
    )


class PriceProposalAdmin(ReadOnlyAdmin):
    """What imports would change: approved or rejected, row by row or many at once."""

    nothing_yet = "Nothing waits for a decision: no source proposes another price."
    list_display = (
        "sku", "kind", "terms", "now", "proposed", "change", "begins", "source", "verdict",
        "decided_by", "decided_at",
    )  # fmt: skip
    list_filter = ("state", "kind", "service_tier", "source")
    search_fields = ("sku",)
    list_select_related = ("replaces",)
    ordering = ("-state", "sku", "pk")
    exclude = ("rates",)
    readonly_fields = ("every_rate",)
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

    @display(description="All that is proposed, $ per million tokens or per request")
    def every_rate(self, row: PriceProposal) -> str:
        return "; ".join(
            f"{name.removesuffix('_pico').replace('_', ' ')} {admin_units.in_words(name, pico)}"
            for name, pico in (row.rates or {}).items()
        )

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

    nothing_yet = "The sources agree on every price."
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


def _in_and_out(input_pico: int, output_pico: int) -> str:
    return f"{dollars_per_million(input_pico)} / {dollars_per_million(output_pico)}"
