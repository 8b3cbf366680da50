"""The form that publishes a price: dollars per million tokens, exact to a pico-dollar per token."""

from decimal import Decimal
from typing import Any

from django import forms
from unfold.widgets import (
    UnfoldAdminDecimalFieldWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from billing.models import Sku
from billing.money import pico_per_token

# A field left empty takes the rate of another one.
INSTEAD = {
    "cache_read": "input",
    "cache_write_5m": "input",
    "cache_write_1h": "input",
    "reasoning": "output",
}


def _rate(label: str, *, required: bool = False) -> forms.DecimalField:
    return forms.DecimalField(
        label=f"{label}, $/M",
        required=required,
        min_value=0,
        max_digits=12,
        decimal_places=6,
        widget=UnfoldAdminDecimalFieldWidget,
    )


class PriceForm(forms.Form):
    sku = forms.CharField(max_length=200, widget=UnfoldAdminTextInputWidget)
    input = _rate("Input", required=True)
    cache_read = _rate("Cached input")
    cache_write_5m = _rate("Cache write, 5 min")
    cache_write_1h = _rate("Cache write, 1 h")
    output = _rate("Output", required=True)
    reasoning = _rate("Reasoning")
    free = forms.BooleanField(
        required=False, label="Published as free", widget=UnfoldBooleanSwitchWidget
    )
    note = forms.CharField(max_length=300, required=False, widget=UnfoldAdminTextInputWidget)

    def clean_sku(self) -> str:
        code = str(self.cleaned_data["sku"]).strip()
        if not Sku.objects.filter(code=code).exists():
            raise forms.ValidationError("No offer is sold under this sku.")
        return code

    def rates(self) -> dict[str, Any]:
        """The rates as `prices.publish` takes them."""
        given: dict[str, Decimal | None] = {
            name: self.cleaned_data.get(name) for name in ("input", "output", *INSTEAD)
        }
        for name, other in INSTEAD.items():
            if given[name] is None:
                given[name] = given[other]
        return {
            f"{name}_pico": pico_per_token(value)
            for name, value in given.items()
            if value is not None
        }
