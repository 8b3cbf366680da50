"""The form in which a seller says what it asks for an offer, and at which hours."""

from datetime import time
from decimal import Decimal
from typing import Any, Final

from django import forms

from billing.dollar_field import DollarField
from billing.money import pico_per_token
from billing.rates import PPM_PER_PERCENT, Rates, Window
from gateway.console.forms import LongSelect, PlainForm
from gateway.models import Seller
from providers.models import Offer

ASKING: Final = "asking"
COST_PLUS: Final = "cost_plus"


def _hour(label: str) -> forms.TimeField:
    widget = forms.TimeInput(attrs={"type": "time"}, format="%H:%M")
    return forms.TimeField(label=label, required=False, input_formats=["%H:%M"], widget=widget)


class AskForm(PlainForm):
    offer = forms.ModelChoiceField(Offer.objects.none(), empty_label=None, widget=LongSelect)
    basis = forms.ChoiceField(
        choices=[(ASKING, "The asking price"), (COST_PLUS, "What it costs me")],
        label="The figures are",
    )
    input = DollarField(label="Input, $ per million", places=6, widget=forms.NumberInput)
    cached = DollarField(
        label="Cached input, $ per million",
        places=6,
        required=False,
        widget=forms.NumberInput,
        help_text="Empty: as input.",
    )
    output = DollarField(label="Output, $ per million", places=6, widget=forms.NumberInput)
    margin = DollarField(
        label="Margin on the cost, %",
        places=4,
        required=False,
        widget=forms.NumberInput,
        help_text="Only on what it costs you: 25 asks for a quarter more.",
    )
    from_hour = _hour("On offer from, UTC")
    to_hour = _hour("until, UTC")

    def __init__(self, *args: Any, seller: Seller, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        offers = self.fields["offer"]
        assert isinstance(offers, forms.ModelChoiceField)
        offers.queryset = Offer.objects.filter(provider=seller.provider).order_by("sku")

    def clean(self) -> None:
        super().clean()
        asked = self.cleaned_data
        start, end = asked.get("from_hour"), asked.get("to_hour")
        if (start is None) != (end is None) or (start is not None and start == end):
            raise forms.ValidationError(
                "Hours begin and end at different times: give both or none."
            )
        if asked.get("basis") == COST_PLUS and asked.get("margin") is None:
            raise forms.ValidationError("Say which margin you want on your cost.")

    def rates(self) -> Rates:
        asked = self.cleaned_data
        entered, output = pico_per_token(asked["input"]), pico_per_token(asked["output"])
        cached: Decimal | None = asked["cached"]
        return Rates(
            input_pico=entered,
            cache_read_pico=entered if cached is None else pico_per_token(cached),
            cache_write_5m_pico=entered,
            cache_write_1h_pico=entered,
            output_pico=output,
            reasoning_pico=output,
        )

    def margin_ppm(self) -> int | None:
        if self.cleaned_data["basis"] == ASKING:
            return None
        return int(self.cleaned_data["margin"] * PPM_PER_PERCENT)

    def window(self) -> Window:
        asked = self.cleaned_data
        return Window(_minute(asked["from_hour"]), _minute(asked["to_hour"]))


def _minute(hour: time | None) -> int:
    return 0 if hour is None else hour.hour * 60 + hour.minute
