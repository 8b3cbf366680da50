"""Stripe: hosted payment pages, saved cards. With `stripe_messages` all that knows it.

The processor is told which top-up a payment is for in its metadata, and every request carries the
top-up's key as idempotency key: a repeated call starts no second payment.
"""

from datetime import datetime, timedelta
from typing import Any, Final, TypedDict

import stripe
from django.conf import settings

from billing.models import Recharge, TopUp
from billing.payments import topups
from billing.payments.facts import Failed, Paid

TIMEOUT_S: Final = 15
# Of a page that somebody waits for. An automatic purchase is asked for again by the clock.
RETRIES_MAX: Final = 2
METADATA_KEY: Final = "topup"
# The processor forgets an idempotency key after a day: later than this nothing is sent again.
SENT_WITHIN: Final = timedelta(hours=23)
# A call that was cut off may be carried out for so long.
CARRIED_OUT_WITHIN: Final = timedelta(hours=1)
LISTED_MAX: Final = 100


class ProcessorAway(RuntimeError):
    """The payment processor did not answer, or not what became of it."""


def is_configured() -> bool:
    return bool(settings.STRIPE_API_KEY and settings.STRIPE_WEBHOOK_SECRET)


def open_page(topup: TopUp, *, return_url: str, save_card: bool) -> str:
    """The address of a hosted page on which this top-up is paid."""
    lines = [_line("Credit", topup.net_cents)]
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


def charge_card(topup: TopUp, *, may_send: bool, now: datetime) -> str:
    """Charge a purchase's card, or find out what became of it; ProcessorAway while nobody can say.
    It is sent again, under its one key, where it may be and the processor still knows the key."""
    age = now - topup.created_at
    if may_send and age < SENT_WITHIN:
        try:
            return _judge(topup, _send(topup), now=now)
        except (stripe.CardError, stripe.InvalidRequestError) as refused:
            # Refused for certain: nothing was charged.
            return _failed(topup, refused.user_message or "declined", now=now)
        except stripe.StripeError as problem:
            unknown = str(problem.user_message or type(problem).__name__)
    else:
        unknown = "not found yet"
    intent = _find(topup)
    if intent is not None:
        return _judge(topup, intent, now=now)
    if may_send and age < SENT_WITHIN or age < CARRIED_OUT_WITHIN:
        raise ProcessorAway(unknown)
    return _failed(topup, "the payment processor never got it", now=now)


def _send(topup: TopUp) -> stripe.PaymentIntent:
    return _client(retries_max=0).v1.payment_intents.create(
        {
            "amount": topup.total_cents,
            "currency": "usd",
            "customer": topup.payer_reference,
            "payment_method": topup.card_reference,
            "off_session": True,
            "confirm": True,
            "metadata": {METADATA_KEY: str(topup.key)},
        },
        _once(topup),
    )


def _find(topup: TopUp) -> stripe.PaymentIntent | None:
    """The payment of this purchase among the payer's; ProcessorAway where they cannot be read."""
    try:
        found = _client(retries_max=0).v1.payment_intents.list(
            {
                "customer": topup.payer_reference,
                "created": {"gte": int(topup.created_at.timestamp()) - 60},
                "limit": LISTED_MAX,
            }
        )
    except stripe.StripeError as problem:
        raise ProcessorAway(str(problem.user_message or type(problem).__name__)) from problem
    named = ((each.to_dict()["metadata"].get(METADATA_KEY), each) for each in found.data)
    return next((each for key, each in named if key == str(topup.key)), None)


def _judge(topup: TopUp, intent: stripe.PaymentIntent, *, now: datetime) -> str:
    if intent.status == "succeeded":
        fact = Paid(
            key=str(topup.key),
            total_cents=intent.amount,
            currency=intent.currency,
            reference=intent.id,
        )
        return topups.paid(fact, seller=settings.INVOICE_SELLER, now=now)
    if intent.status == "processing":
        raise ProcessorAway(f"the processor says: {intent.status}")
    if intent.status != "canceled":
        # It waits for its payer, who is not there: nobody may complete it later.
        try:
            _client(retries_max=0).v1.payment_intents.cancel(intent.id)
        except stripe.StripeError as problem:
            raise ProcessorAway(f"{intent.status}, and cannot be cancelled") from problem
    said = intent.last_payment_error
    return _failed(topup, (said and said.message) or f"it ended as {intent.status}", now=now)


def _failed(topup: TopUp, why: str, *, now: datetime) -> str:
    return topups.failed(Failed(key=str(topup.key), why=why), now=now)


def keep_card(*, key: str, payer: str | None, payment: str | None) -> None:
    """Remember the payer whose card was saved on a payment page, for automatic recharges."""
    if not payer or not payment:
        return
    topup = topups.find(key)
    if topup is None or topup.state != TopUp.State.PAID:
        return
    try:
        intent = _client().v1.payment_intents.retrieve(payment)
    except stripe.StripeError as problem:
        raise ProcessorAway("the saved card could not be looked up") from problem
    if intent.payment_method:
        Recharge.objects.filter(tenant=topup.tenant).update(
            payer_reference=payer, card_reference=str(intent.payment_method)
        )


def _client(*, retries_max: int = RETRIES_MAX) -> stripe.StripeClient:
    return stripe.StripeClient(
        settings.STRIPE_API_KEY,
        base_addresses={"api": settings.STRIPE_API_URL},
        http_client=stripe.RequestsClient(timeout=TIMEOUT_S),
        max_network_retries=retries_max,
    )


class ProductData(TypedDict):
    name: str


class PriceData(TypedDict):
    currency: str
    unit_amount: int
    product_data: ProductData


class PageLine(TypedDict):
    """A line of a payment page, as the processor wants it."""

    quantity: int
    price_data: PriceData


def _line(name: str, cents: int) -> PageLine:
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
