"""What a payment processor's messages come to, whoever it is. Pure.

A processor's own module reads its messages into these; they are kept while one waits.
"""

from typing import Any, TypeAlias

import msgspec

from billing.models import Dispute


class Paid(msgspec.Struct, frozen=True, kw_only=True, tag="paid"):
    """The processor has the money for a purchase."""

    key: str
    total_cents: int
    currency: str
    reference: str


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    key: str
    why: str


class Refunded(msgspec.Struct, frozen=True, kw_only=True, tag="refunded"):
    """Money went back to the payer: `refunded_cents` of this payment in all so far."""

    reference: str
    refunded_cents: int


class Disputed(msgspec.Struct, frozen=True, kw_only=True, tag="disputed"):
    """A dispute about a payment has reached a stage."""

    reference: str
    dispute_id: str
    amount_cents: int
    stage: Dispute.Stage


Fact: TypeAlias = Paid | Failed | Refunded | Disputed


def subject_of(fact: Fact) -> str:
    """The purchase's key, or the processor's name of the payment."""
    return fact.key if isinstance(fact, Paid | Failed) else fact.reference


def kept(fact: Fact) -> Any:
    """As JSON."""
    return msgspec.to_builtins(fact)


def read(stored: Any) -> Fact:
    fact: Fact = msgspec.convert(stored, Fact)
    return fact
