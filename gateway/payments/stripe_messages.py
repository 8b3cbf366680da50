"""Stripe's signed messages, read into what billing understands."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import msgspec
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
OF_CONCERN: Final = frozenset(
    {REFUNDED, *REFUND_FAILED, *PAGE_PAID, *PAGE_FAILED, CARD_PAID, *CARD_FAILED}
)
NO_CONCERN: Final = "of no concern"
Stage = Dispute.Stage


class BadMessage(ValueError):
    """A message that the processor did not sign, or not for us."""


class UnreadableMessage(ValueError):
    """A signed message whose figures cannot be read, or which only a person can act on."""


class PaymentProblem(msgspec.Struct, frozen=True):
    message: str | None = None


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """What is read of the thing that a message is about: a payment page, a payment, a charge, a
    refund or a dispute. Which fields are there depends on which it is."""

    id: str | None = None
    metadata: dict[str, object] | None = None
    payment_intent: str | None = None
    payment_status: str | None = None
    status: str | None = None
    currency: str | None = None
    customer: str | None = None
    amount: int | None = None
    amount_total: int | None = None
    amount_refunded: int | None = None
    last_payment_error: PaymentProblem | None = None

    @property
    def key(self) -> str:
        """The purchase that a payment is for; empty where it is none of ours."""
        return str((self.metadata or {}).get(METADATA_KEY) or "")

    @property
    def own_id(self) -> str:
        if self.id is None:
            raise ValueError("it has no id")
        return self.id


@dataclass(frozen=True, slots=True)
class Message:
    """`subject` as it came; `subject_of` reads it."""

    event_id: str
    kind: str
    subject: Mapping[str, object]


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
    if message.kind not in OF_CONCERN and not message.kind.startswith(DISPUTED):
        return NO_CONCERN
    try:
        return _fact_of(message.kind, subject_of(message))
    except ValueError as problem:
        raise UnreadableMessage(f"cannot be read: {type(problem).__name__} {problem}") from problem


def subject_of(message: Message) -> Subject:
    """ValueError where a field is not of its kind."""
    return msgspec.convert(message.subject, Subject)


def _fact_of(kind: str, subject: Subject) -> Fact | str:
    key, payment = subject.key, subject.payment_intent
    if kind in PAGE_PAID and key and subject.payment_status == "paid":
        return _paid(subject, subject.amount_total, payment or subject.own_id)
    if kind in PAGE_FAILED and key:
        return Failed(key=key, why="the payment page was left")
    if kind == CARD_PAID and key:
        return _paid(subject, subject.amount, subject.own_id)
    if kind in CARD_FAILED and key:
        problem = subject.last_payment_error
        return Failed(key=key, why=(problem and problem.message) or "declined")
    if kind == REFUNDED and payment:
        return Refunded(reference=payment, refunded_cents=_cents(subject.amount_refunded))
    if kind in REFUND_FAILED and payment and subject.status in ("failed", "canceled"):
        raise ValueError(f"refund {subject.id} of {payment} did not arrive")
    if kind.startswith(DISPUTED) and payment:
        return _disputed(kind.removeprefix(DISPUTED), subject, payment)
    return NO_CONCERN


def _paid(subject: Subject, amount_cents: int | None, reference: str) -> Paid:
    if subject.currency is None:
        raise ValueError("it names no currency")
    return Paid(
        key=subject.key,
        total_cents=_cents(amount_cents),
        currency=subject.currency,
        reference=reference,
    )


def _disputed(word: str, subject: Subject, payment: str) -> Disputed | str:
    status = subject.status or ""
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
        dispute_id=subject.own_id,
        amount_cents=_cents(subject.amount),
        stage=stages[word],
    )


def _cents(value: int | None) -> int:
    if value is None or value < 0:
        raise ValueError(f"no amount: {value!r}")
    return value
