"""Stripe: hosted payment pages, saved cards, signed messages. The only file that knows it.

The processor is told which top-up a payment is for in its metadata, and every request carries the
top-up's key as idempotency key: a repeated call starts no second payment.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import stripe
from django.conf import settings

from billing import topups
from billing.models import Recharge, TopUp

TIMEOUT_S: Final = 15
RETRIES_MAX: Final = 2
SIGNATURE_AGE_S_MAX: Final = 300
METADATA_KEY: Final = "topup"
REFUNDED: Final = "charge.refunded"
PAGE_PAID: Final = ("checkout.session.completed", "checkout.session.async_payment_succeeded")
PAGE_FAILED: Final = ("checkout.session.expired", "checkout.session.async_payment_failed")
CARD_PAID: Final = "payment_intent.succeeded"
CARD_FAILED: Final = "payment_intent.payment_failed"


class ProcessorAway(RuntimeError):
    """The payment processor did not answer, or refused; nothing was paid."""


class BadMessage(ValueError):
    """A message that the processor did not sign, or not for us."""


@dataclass(frozen=True, slots=True)
class Message:
    event_id: str
    kind: str
    subject: dict[str, Any]


def is_configured() -> bool:
    return bool(settings.STRIPE_API_KEY and settings.STRIPE_WEBHOOK_SECRET)


def open_page(topup: TopUp, *, return_url: str, save_card: bool) -> str:
    """The address of a hosted page on which this top-up is paid."""
    lines: list[Any] = [_line("Credit", topup.net_cents)]
    if topup.tax_cents:
        lines.append(_line("Tax", topup.tax_cents))
    params: Any = {
        "mode": "payment",
        "line_items": lines,
        "success_url": f"{return_url}?paid=1",
        "cancel_url": return_url,
        "client_reference_id": str(topup.key),
        "metadata": {METADATA_KEY: str(topup.key)},
    }
    if save_card:
        params["customer_creation"] = "always"
        params["payment_intent_data"] = {"setup_future_usage": "off_session"}
    try:
        page = _client().v1.checkout.sessions.create(params, _once(topup))
    except stripe.StripeError as problem:
        raise ProcessorAway(
            "The payment processor did not open a payment page. Nothing was paid; try again."
        ) from problem
    if not page.url:
        raise ProcessorAway("the processor gave no payment page")
    return page.url


def charge_card(topup: TopUp, recharge: Recharge, *, now: datetime) -> str:
    """Charge a saved card; what came of it, as far as it is known by now."""
    try:
        intent = _client().v1.payment_intents.create(
            {
                "amount": topup.total_cents,
                "currency": "usd",
                "customer": recharge.payer_reference,
                "payment_method": recharge.card_reference,
                "off_session": True,
                "confirm": True,
                "metadata": {METADATA_KEY: str(topup.key)},
            },
            _once(topup),
        )
    except stripe.CardError as refused:
        return topups.failed(key=str(topup.key), why=refused.user_message or "declined", now=now)
    except stripe.StripeError as problem:
        # It may have been charged: the processor's message will tell.
        raise ProcessorAway(str(problem.user_message or type(problem).__name__)) from problem
    if intent.status != "succeeded":
        return f"the processor says: {intent.status}"
    return topups.paid(
        seller=settings.INVOICE_SELLER,
        key=str(topup.key),
        total_cents=intent.amount,
        currency=intent.currency,
        reference=intent.id,
        now=now,
    )


def read_message(body: bytes, signature: str) -> Message:
    """A message whose signature and age are right."""
    try:
        event = stripe.Webhook.construct_event(
            body, signature, settings.STRIPE_WEBHOOK_SECRET, tolerance=SIGNATURE_AGE_S_MAX
        )
    except (stripe.SignatureVerificationError, ValueError, KeyError) as problem:
        raise BadMessage("not signed by the payment processor") from problem
    return Message(event["id"], event["type"], event["data"]["object"].to_dict())


def act_on(message: Message, *, now: datetime) -> str:
    """Carry out a message; kinds that do not concern us are noted and left."""
    subject = message.subject
    key = (subject.get("metadata") or {}).get(METADATA_KEY, "")
    if message.kind in PAGE_PAID and subject.get("payment_status") == "paid":
        return topups.paid(
            seller=settings.INVOICE_SELLER,
            key=key,
            total_cents=subject["amount_total"],
            currency=subject["currency"],
            reference=str(subject.get("payment_intent") or subject["id"]),
            now=now,
        )
    if message.kind in PAGE_FAILED:
        return topups.failed(key=key, why="the payment page was left", now=now)
    if message.kind == CARD_PAID and key:
        return topups.paid(
            seller=settings.INVOICE_SELLER,
            key=key,
            total_cents=subject["amount"],
            currency=subject["currency"],
            reference=subject["id"],
            now=now,
        )
    if message.kind == CARD_FAILED and key:
        problem = subject.get("last_payment_error") or {}
        return topups.failed(key=key, why=problem.get("message", "declined"), now=now)
    if message.kind == REFUNDED:
        return topups.refunded(
            reference=str(subject.get("payment_intent") or ""),
            refunded_cents=subject["amount_refunded"],
            seller=settings.INVOICE_SELLER,
            now=now,
        )
    return "of no concern"


def keep_card(message: Message) -> None:
    """Remember the payer whose card was saved on a payment page, for automatic recharges."""
    page = message.subject
    if message.kind not in PAGE_PAID or not page.get("customer") or not page.get("payment_intent"):
        return
    key = (page.get("metadata") or {}).get(METADATA_KEY, "")
    topup = TopUp.objects.filter(key=key, state=TopUp.State.PAID).first()
    if topup is None:
        return
    try:
        intent = _client().v1.payment_intents.retrieve(str(page["payment_intent"]))
    except stripe.StripeError as problem:
        raise ProcessorAway("the saved card could not be looked up") from problem
    if intent.payment_method:
        Recharge.objects.filter(tenant=topup.tenant).update(
            payer_reference=str(page["customer"]), card_reference=str(intent.payment_method)
        )


def _client() -> stripe.StripeClient:
    return stripe.StripeClient(
        settings.STRIPE_API_KEY,
        base_addresses={"api": settings.STRIPE_API_URL},
        http_client=stripe.RequestsClient(timeout=TIMEOUT_S),
        max_network_retries=RETRIES_MAX,
    )


def _line(name: str, cents: int) -> dict[str, Any]:
    return {
        "quantity": 1,
        "price_data": {
            "currency": "usd",
            "unit_amount": cents,
            "product_data": {"name": name},
        },
    }


def _once(topup: TopUp) -> Any:
    return {"idempotency_key": str(topup.key)}
