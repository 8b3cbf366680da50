"""What billing refuses, with facts and never with HTTP.

BillingError(code)
  Cold                  the shard's Redis does not know its epoch: nothing is granted until rebuilt
    Behind              nothing is granted until its usage has been drained
  HoldNotOpen(state)    a hold was settled, voided or expired already
  PriceRefused          a price version that must not be published
  LimitRefused          a quota or rate limit that must not be set
  CreditRefused         an amount that cannot be granted
  PaymentUnknown        a message about a payment that is not ours, or not yet
  PaymentDoubted        a message about a payment that a person has to look at
  InvoiceRefused        an invoice, payment or credit note that must not be made like this
  PayoutRefused         more than is owed, or a reference that is booked with other facts
  FindingRefused        a finding of an audit that cannot be resolved like this
  AnchorRefused         a text that is no anchor, or not as it was given
  UnbalancedTransfer    entries that do not sum to zero: a bug
  LockTimeout           somebody else has held the lock for too long
"""


class BillingError(Exception):
    code = "billing_error"


class Cold(BillingError):
    code = "cold"


class Behind(Cold):
    code = "behind"


class HoldNotOpen(BillingError):
    code = "hold_not_open"

    def __init__(self, state: str) -> None:
        super().__init__(f"the hold is not open: {state or 'unknown'}")
        self.state = state


class PriceRefused(BillingError):
    code = "price_refused"


class LimitRefused(BillingError):
    code = "limit_refused"


class CreditRefused(BillingError):
    code = "credit_refused"


class PaymentUnknown(BillingError):
    code = "payment_unknown"


class PaymentDoubted(BillingError):
    code = "payment_doubted"


class InvoiceRefused(BillingError):
    code = "invoice_refused"


class PayoutRefused(BillingError):
    code = "payout_refused"


class FindingRefused(BillingError):
    code = "finding_refused"


class AnchorRefused(BillingError):
    code = "anchor_refused"


class UnbalancedTransfer(BillingError):
    code = "unbalanced_transfer"


class LockTimeout(BillingError):
    code = "lock_timeout"
