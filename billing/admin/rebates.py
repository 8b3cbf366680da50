"""Volume rebates in the admin console: a plan's tiers, and what was posted."""

from datetime import datetime
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.utils import timezone
from unfold.decorators import display
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget

from billing.admin.base_admin import HistoryAdmin, ServiceAdmin, months
from billing.admin.units import dollars
from billing.corrections import rebates
from billing.corrections.volume_tiers import TIERS_MAX, Tier
from billing.errors import BillingError
from billing.models import PriceList, RebateScale, VolumeRebate
from billing.money import pico_from_usd
from billing.rates import PPM_PER_PERCENT, percent_text


class RebateScaleForm(forms.ModelForm):  # type: ignore[type-arg]
    lines = forms.CharField(
        label="Tiers",
        max_length=2_000,
        widget=UnfoldAdminTextareaWidget(attrs={"rows": 4}),
        help_text="One a line: up to $, per cent back, bonus $ if any. The last has no end: "
        "“1000, 2”, “10000, 5”, “-, 8, 100”.",
    )

    class Meta:
        model = RebateScale
        fields = ("plan", "mode", "from_month")
        widgets = {"mode": UnfoldAdminSelectWidget}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        plan = self.fields.get("plan")
        if isinstance(plan, forms.ModelChoiceField):
            plan.queryset = PriceList.objects.filter(kind=PriceList.Kind.PLAN)

    def clean_lines(self) -> list[Tier]:
        lines = [line for line in self.cleaned_data["lines"].splitlines() if line.strip()]
        if len(lines) > TIERS_MAX:
            raise ValidationError(f"Give at most {TIERS_MAX} tiers.")
        return [_tier(line) for line in lines]


def _tier(line: str) -> Tier:
    parts = [part.strip() for part in line.split(",")]
    if not 2 <= len(parts) <= 3:
        raise ValidationError(f"Not a tier: {line[:60]!r}.")
    up_to, percent, bonus = (*parts, "0")[:3]
    try:
        return Tier(
            None if up_to == "-" else pico_from_usd(up_to),
            # Exact to a ten-thousandth of a per cent, like every share here.
            pico_from_usd(percent) * PPM_PER_PERCENT // 10**12,
            pico_from_usd(bonus),
        )
    except ValueError as wrong:
        raise ValidationError(f"Not a tier: {line[:60]!r}: {wrong}.") from wrong


class RebateScaleAdmin(ServiceAdmin):
    form = RebateScaleForm
    refusals = (BillingError,)
    list_display = ("plan", "from_month", "mode", "shown", "recorded_by")
    list_filter = ("plan",)
    list_select_related = ("plan",)
    ordering = ("-from_month",)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> tuple[str, ...]:
        return () if obj is None else ("shown",)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return obj is None and super().has_change_permission(request, obj)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        made = rebates.set_scale(
            plan=obj.plan,
            mode=obj.mode,
            scale=form.cleaned_data["lines"],
            from_month=obj.from_month,
            actor=request.user.get_username(),
            now=timezone.now(),
        )
        self.take_over(obj, made)

    @display(description="Tiers")
    def shown(self, scale: RebateScale) -> str:
        return "; ".join(
            f"{'above' if up_to is None else f'to {dollars(up_to)}'} {percent_text(ppm)}"
            + (f" and {dollars(bonus)}" if bonus else "")
            for up_to, ppm, bonus in scale.tiers
        )


class VolumeRebateAdmin(HistoryAdmin):
    """What was posted: the first of a month, and each difference since."""

    nothing_yet = "No rebate was posted yet: they are when a month has ended."
    list_display = ("posted_at", "tenant", "period", "plan", "spent", "due", "posted", "by")
    list_filter = ("tenant", "scale__plan", months("month"))
    list_select_related = ("tenant", "grant", "scale__plan")

    @display(description="Posted at", ordering="grant__created_at")
    def posted_at(self, rebate: VolumeRebate) -> datetime:
        return rebate.grant.created_at

    @display(description="For", ordering="month")
    def period(self, rebate: VolumeRebate) -> str:
        return f"{rebate.month:%Y-%m}"

    @display(description="Plan")
    def plan(self, rebate: VolumeRebate) -> str:
        return str(rebate.scale.plan)

    @display(description="Posted")
    def posted(self, rebate: VolumeRebate) -> str:
        return dollars(int(rebate.grant.amount_pico))

    @display(description="By")
    def by(self, rebate: VolumeRebate) -> str:
        return rebate.grant.created_by

    @display(description="Spent")
    def spent(self, rebate: VolumeRebate) -> str:
        return dollars(int(rebate.spent_pico))

    @display(description="Due by then")
    def due(self, rebate: VolumeRebate) -> str:
        return dollars(int(rebate.due_pico))
