"""What alerts say: a mail's subject and text, and a webhook's JSON. Pure."""

from decimal import Decimal

import msgspec

from billing.models import AdjustmentNote, AlertDelivery, BudgetAlert, CreditAlert, Refund
from billing.money import PICO_PER_CENT, usd_json


def mail_of(delivery: AlertDelivery, *, console_url: str) -> tuple[str, str]:
    """Subject and text."""
    alert = _alert_of(delivery)
    if isinstance(alert, BudgetAlert):
        return (
            f"Budget at {alert.percent} %: {alert.subject}",
            f"The budget of {alert.subject} has reached {alert.percent} % of its limit: "
            f"${_usd(alert.spent_pico)} of ${_usd(alert.limit_pico)} at "
            f"{alert.occurred_at:%Y-%m-%d %H:%M} UTC.\n\n"
            f"Raise or change it: {console_url}/budgets/\n",
        )
    if isinstance(alert, Refund):
        net, was = _cents(abs(alert.net_cents)), "taken" if alert.net_cents >= 0 else "given"
        return (
            f"Credit {was} back: ${net}",
            f"${net} of bought credit was {was} back: payment {alert.payment_reference} was "
            f"{alert.get_cause_display()}. The note is {alert.number}.\n\n"
            f"See it: {console_url}/billing/\n",
        )
    if isinstance(alert, AdjustmentNote):
        sum_usd = f"${_usd(Decimal(abs(alert.charged_pico)))}"
        was = "charged" if alert.charged_pico > 0 else "given back"
        return (
            f"{sum_usd} {was}: {alert.title.lower()} {alert.number}",
            f"{alert.tenant} was {was} {sum_usd}: {alert.reason}.\nIt is a line of the next "
            f"invoice. The note is {alert.number}.\n\nSee it: {console_url}/billing/\n",
        )
    return (
        f"Credit below ${_usd(alert.below_pico)}: {alert.tenant}",
        f"The credit of {alert.tenant} has fallen below ${_usd(alert.below_pico)}: "
        f"${_usd(alert.left_pico)} was left at {alert.occurred_at:%Y-%m-%d %H:%M} UTC. "
        "Requests that it does not cover are refused.\n\n"
        f"Buy credit: {console_url}/billing/\n",
    )


def webhook_of(delivery: AlertDelivery) -> bytes:
    """The same bytes whenever it is tried; `id` says which one it is."""
    alert = _alert_of(delivery)
    if isinstance(alert, BudgetAlert):
        said = {
            "id": f"alert-{alert.pk}-{delivery.channel_id}",
            "type": "budget.threshold",
            "subject": alert.subject,
            "percent": alert.percent,
            "spent_usd": _usd(alert.spent_pico),
            "limit_usd": _usd(alert.limit_pico),
        }
    elif isinstance(alert, Refund):
        said = {
            "id": f"refund-{alert.pk}-{delivery.channel_id}",
            "type": f"credit.{alert.cause}",
            "number": alert.number,
            "payment": alert.payment_reference,
            "net_usd": _cents(alert.net_cents),
            "tax_usd": _cents(alert.tax_cents),
        }
    elif isinstance(alert, AdjustmentNote):
        said = {
            "id": f"adjustment-{alert.pk}-{delivery.channel_id}",
            "type": "adjustment.issued",
            "number": alert.number,
            "cause": alert.cause,
            "reason": alert.reason,
            "charged_usd": _usd(Decimal(alert.charged_pico)),
        }
    else:
        said = {
            "id": f"credit-{alert.pk}-{delivery.channel_id}",
            "type": "credit.low",
            "below_usd": _usd(alert.below_pico),
            "left_usd": _usd(alert.left_pico),
        }
    at = alert.issued_at if isinstance(alert, Refund | AdjustmentNote) else alert.occurred_at
    return msgspec.json.encode(said | {"occurred_at": at.isoformat()})


def _alert_of(delivery: AlertDelivery) -> BudgetAlert | CreditAlert | Refund | AdjustmentNote:
    alert = delivery.alert or delivery.credit_alert or delivery.refund or delivery.adjustment
    assert alert is not None
    return alert


def _cents(cents: int) -> str:
    return _usd(Decimal(cents * PICO_PER_CENT))


def _usd(pico: Decimal) -> str:
    return usd_json(int(pico)).decode()
