"""What a tenant types to buy credit, once or by itself when little is left."""

from decimal import Decimal

from django import forms

from billing.dollar_field import DollarField
from billing.models import Recharge
from billing.payments import topups
from gateway.console.forms import PlainForm


def in_cents(dollars: Decimal) -> int:
    return int(dollars.scaleb(2))


def _sum_field(label: str, hint: str = "", *, minimum: int) -> DollarField:
    return DollarField(
        label=label,
        help_text=hint,
        places=2,
        minimum=minimum,
        max_value=topups.NET_CENTS_MAX // 100,
        widget=forms.TextInput(attrs={"inputmode": "decimal", "autocomplete": "off"}),
    )


class TopUpForm(PlainForm):
    amount_usd = _sum_field("Amount, $", minimum=topups.NET_CENTS_MIN // 100)
    save_card = forms.BooleanField(
        label="Save the card",
        required=False,
        help_text="So that credit can be bought by itself when little is left.",
    )


class RechargeForm(PlainForm):
    is_on = forms.BooleanField(label="Switched on", required=False)
    below_usd = _sum_field("When less is left than, $", minimum=0)
    amount_usd = _sum_field("Buy, $", minimum=topups.NET_CENTS_MIN // 100)
    monthly_max_usd = _sum_field(
        "At most per month, $",
        "A month of your calendar, before tax.",
        minimum=topups.NET_CENTS_MIN // 100,
    )

    def clean(self) -> None:
        super().clean()
        cleaned = self.cleaned_data
        amount, most = cleaned.get("amount_usd"), cleaned.get("monthly_max_usd")
        if amount is not None and most is not None and most < amount:
            self.add_error("monthly_max_usd", "Less than one purchase.")


def recharge_terms(recharge: Recharge | None) -> dict[str, bool | Decimal]:
    """A tenant's terms as the form shows them."""
    if recharge is None:
        return {}
    return {
        "is_on": recharge.is_on,
        "below_usd": Decimal(recharge.below_cents).scaleb(-2),
        "amount_usd": Decimal(recharge.amount_cents).scaleb(-2),
        "monthly_max_usd": Decimal(recharge.monthly_max_cents).scaleb(-2),
    }
