"""Stripe's signed messages, read into what billing understands."""

from dataclasses import dataclass
from typing import Any, Final

import stripe
from django.conf import settings

from billing.models import Dispute
from billing.payments.facts import Disputed, Fact, Failed, Paid, Refunded
from gateway.payments.processor import METADATA_KEY

SIGNATURE_AGE_S_MAX: Final = 300
REFUNDED: Final = "charge.refunded"
# A refund that did not arrive: the money is with us again, and credit was taken for it.
REFUND_FAILED: Final = ("refund.failed", "charge.refund.updated")
PAGE_PAID: Final = ("checkout.session.completed", "checkout.session.async_payment_succeeded")
PAGE_FAILED: Final = ("checkout.session.expired", "checkout.session.async_payment_failed")
CARD_PAID: Final = "payment_intent.succeeded"
CARD_FAILED: Final = ("payment_intent.payment_failed", "payment_intent.canceled")
DISPUTED: Final = "charge.dispute."
NO_CONCERN: Final = "of no concern"
Stage = Dispute.Stage


class BadMessage(ValueError):
    """A message that the processor did not sign, or not for us."""


class UnreadableMessage(ValueError):
    """A signed message whose figures cannot be read, or which only a person can act on."""


@dataclass(frozen=True, slots=True)
class Message:
    event_id: str
    kind: str
    subject: dict[str, Any]


def read(body: bytes, signature: str) -> Message:
    """A message whose signature and age are right."""
    try:
        event = stripe.Webhook.construct_event(
            body, signature, settings.STRIPE_WEBHOOK_SECRET, tolerance=SIGNATURE_AGE_S_MAX
        )
        return Message(str(event["id"]), event["type"], event["data"]["object"].to_dict())
    except (stripe.SignatureVerificationError, ValueError, KeyError, AttributeError) as problem:
        raise BadMessage("not signed by the payment processor") from problem


def fact_of(message: Message) -> Fact | str:
    """What a message says, or why there is nothing to do; UnreadableMessage where it says that it
    concerns us and not what."""
    try:
        return _fact_of(message.kind, message.subject)
    except (KeyError, TypeError, ValueError) as problem:
        raise UnreadableMessage(f"cannot be read: {type(problem).__name__} {problem}") from problem


def _fact_of(kind: str, subject: dict[str, Any]) -> Fact | str:
    key = str((subject.get("metadata") or {}).get(METADATA_KEY) or "")
    payment = str(subject.get("payment_intent") or "")
    if kind in PAGE_PAID and key and subject.get("payment_status") == "paid":
        return _paid(key, subject, "amount_total", payment or str(subject["id"]))
    if kind in PAGE_FAILED and key:
        return Failed(key=key, why="the payment page was left")
    if kind == CARD_PAID and key:
        return _paid(key, subject, "amount", str(subject["id"]))
    if kind in CARD_FAILED and key:
        problem = subject.get("last_payment_error") or {}
        return Failed(key=key, why=str(problem.get("message") or "declined"))
    if kind == REFUNDED and payment:
        return Refunded(reference=payment, refunded_cents=_cents(subject["amount_refunded"]))
    if kind in REFUND_FAILED and payment and subject.get("status") in ("failed", "canceled"):
        raise ValueError(f"refund {subject.get('id')} of {payment} did not arrive")
    if kind.startswith(DISPUTED) and payment:
        return _disputed(kind.removeprefix(DISPUTED), subject, payment)
    return NO_CONCERN


def _paid(key: str, subject: dict[str, Any], amount: str, reference: str) -> Paid:
    return Paid(
        key=key,
        total_cents=_cents(subject[amount]),
        currency=str(subject["currency"]),
        reference=reference,
    )


def _disputed(word: str, subject: dict[str, Any], payment: str) -> Disputed | str:
    status = str(subject.get("status") or "")
    stages = {
        "created": Stage.INQUIRY if status.startswith("warning") else Stage.OPENED,
        "funds_withdrawn": Stage.WITHDRAWN,
        "funds_reinstated": Stage.REINSTATED,
        "closed": {"won": Stage.WON, "lost": Stage.LOST}.get(status, Stage.INQUIRY),
    }
    if word not in stages:
        return NO_CONCERN
    return Disputed(
        reference=payment,
        dispute_id=str(subject["id"]),
        amount_cents=_cents(subject["amount"]),
        stage=stages[word],
    )


def _cents(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"no amount: {value!r}")
    return value
