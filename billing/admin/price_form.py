"""The forms that publish and correct prices: dollars per million tokens, exact to a pico-dollar."""

from datetime import time
from decimal import Decimal
from typing import Final

from django import forms
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminSplitDateTimeWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from billing.dollar_field import DollarField
from billing.kinds import ServiceTier
from billing.models import Sku
from billing.money import pico_from_usd, pico_per_token
from billing.prices.versions import CONTEXT_OVER_MAX, Slot
from billing.rates import Rates, Window

# A field left empty takes the rate of another one.
INSTEAD: Final = {
    "cache_read": "input",
    "cache_write_5m": "input",
    "cache_write_1h": "input",
    "reasoning": "output",
}
# Left empty, these are not sold.
OPTIONAL: Final = ("input_audio", "input_image", "output_audio")


def _rate(label: str, *, required: bool = False) -> DollarField:
    return DollarField(label=f"{label}, $/M", required=required, places=6)


def _hour(label: str) -> forms.TimeField:
    return forms.TimeField(
        label=label,
        required=False,
        input_formats=["%H:%M"],
        widget=UnfoldAdminTextInputWidget(attrs={"placeholder": "16:30"}),
    )


def moment(label: str, *, required: bool = True) -> forms.SplitDateTimeField:
    return forms.SplitDateTimeField(
        label=f"{label}, UTC", required=required, widget=UnfoldAdminSplitDateTimeWidget
    )


class RatesForm(forms.Form):
    """Which price, and what it is."""

    sku = forms.CharField(max_length=200, widget=UnfoldAdminTextInputWidget)
    service_tier = forms.TypedChoiceField(
        choices=ServiceTier.choices(),
        coerce=int,
        required=False,
        empty_value="0",
        widget=UnfoldAdminSelectWidget,
    )
    context_over = forms.IntegerField(
        label="For inputs above, tokens",
        required=False,
        min_value=0,
        max_value=CONTEXT_OVER_MAX,
        widget=UnfoldAdminIntegerFieldWidget,
    )
    from_hour = _hour("From, UTC, if for some hours only")
    to_hour = _hour("To before, UTC")
    input = _rate("Input", required=True)
    cache_read = _rate("Cached input")
    cache_write_5m = _rate("Cache write, 5 min")
    cache_write_1h = _rate("Cache write, 1 h")
    output = _rate("Output", required=True)
    reasoning = _rate("Reasoning")
    input_audio = _rate("Audio input")
    input_image = _rate("Image input")
    output_audio = _rate("Audio output")
    request = DollarField(label="Per request, $", required=False, places=12)

    def clean_sku(self) -> str:
        code = str(self.cleaned_data["sku"]).strip()
        if not Sku.objects.filter(code=code).exists():
            raise forms.ValidationError("No offer is sold under this sku.")
        return code

    def clean(self) -> None:
        super().clean()
        asked = self.cleaned_data
        if (asked.get("from_hour") is None) != (asked.get("to_hour") is None):
            raise forms.ValidationError("Hours have a beginning and an end: give both or none.")
        if asked.get("from_hour") is not None and asked["from_hour"] == asked["to_hour"]:
            raise forms.ValidationError("Hours begin and end at different minutes.")

    def slot(self) -> Slot:
        asked = self.cleaned_data
        return Slot(
            int(asked["service_tier"]),
            asked["context_over"] or 0,
            Window(_minute(asked["from_hour"]), _minute(asked["to_hour"])),
        )

    def rates(self) -> Rates:
        asked = self.cleaned_data
        given: dict[str, Decimal | None] = {
            name: asked.get(name) for name in ("input", "output", *INSTEAD, *OPTIONAL)
        }
        for name, other in INSTEAD.items():
            if given[name] is None:
                given[name] = given[other]
        pico = {
            f"{name}_pico": pico_per_token(value)
            for name, value in given.items()
            if value is not None
        }
        return Rates(**pico, request_pico=pico_from_usd(asked["request"] or 0))


def _minute(hour: time | None) -> int:
    return 0 if hour is None else hour.hour * 60 + hour.minute


class PriceForm(RatesForm):
    free = forms.BooleanField(
        required=False, label="Published as free", widget=UnfoldBooleanSwitchWidget
    )
    valid_from = moment("In force from (empty: now)", required=False)
    note = forms.CharField(max_length=300, required=False, widget=UnfoldAdminTextInputWidget)


class CorrectionForm(RatesForm):
    since = moment("From")
    until = moment("To before")
    charges_more = forms.BooleanField(
        required=False,
        label="Charge tenants that paid too little",
        widget=UnfoldBooleanSwitchWidget,
    )
    reason = forms.CharField(max_length=160, widget=UnfoldAdminTextInputWidget)
