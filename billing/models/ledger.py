"""The ledger: accounts, and balanced append-only transfers of signed entries.

Sign: an entry's amount is positive when it debits its account, negative when it credits it;
the entries of a transfer sum to zero (deferred trigger), and no row is ever updated.
"""

from django.db import models


class Account(models.Model):
    class Kind(models.TextChoices):
        TENANT_CREDIT = "tenant_credit"  # what we owe a tenant: prepaid credit not yet used
        CASH = "cash"  # money received for top-ups
        PROMO_EXPENSE = "promo_expense"  # credit given away
        REVENUE = "revenue"
        PROVIDER_PAYABLE = "provider_payable"  # what we owe a supplier, in-house included
        COST_OF_SALES = "cost_of_sales"
        PROVIDER_WASTE = "provider_waste"  # supplier cost of attempts nobody pays for
        SUPPLIER_EXPOSURE = "supplier_exposure"  # may still be billed to us: expired holds
        OVERAGE_REVIEW = "overage_review"  # what a provider reported above the hold
        ROUNDING = "rounding"
        RECEIVABLE = "receivable"  # tax that a tenant was invoiced and has not paid
        TAX_PAYABLE = "tax_payable"
        BREAKAGE = "breakage"  # bought credit that expired unused

    kind = models.CharField(max_length=32, choices=Kind)
    tenant = models.ForeignKey(
        "billing.Tenant", on_delete=models.PROTECT, null=True, blank=True, related_name="accounts"
    )
    supplier = models.CharField(max_length=80, blank=True, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["kind", "tenant", "supplier"],
                nulls_distinct=False,
                name="account_unique",
            ),
        ]

    def __str__(self) -> str:
        return ":".join(str(p) for p in (self.kind, self.tenant_id, self.supplier) if p)


class Transfer(models.Model):
    """One balanced, immutable group of entries. `code` says why; a correction names its origin."""

    class Code(models.TextChoices):
        GRANT = "grant"
        USAGE = "usage"
        CORRECTION = "correction"
        INVOICE = "invoice"  # the tax of a finalised invoice, or of one that was voided
        PAYMENT = "payment"
        CREDIT_NOTE = "credit_note"
        PAYOUT = "payout"  # money sent to a seller

    code = models.CharField(max_length=16, choices=Code)
    tenant = models.ForeignKey("billing.Tenant", on_delete=models.PROTECT, null=True, blank=True)
    memo = models.CharField(max_length=200, blank=True)
    corrects = models.ForeignKey("self", on_delete=models.PROTECT, null=True, blank=True)
    idempotency_key = models.CharField(max_length=100, unique=True)
    created_at = models.DateTimeField(auto_now_add=True, db_index=True)

    class Meta:
        # What a tenant's next invoice may have to cover.
        indexes = [
            models.Index(fields=["tenant", "id"], name="transfer_tenant"),
            models.Index(fields=["code", "-id"], name="transfer_code"),
        ]

    def __str__(self) -> str:
        return f"{self.code} {self.pk}"


class Entry(models.Model):
    transfer = models.ForeignKey(Transfer, on_delete=models.PROTECT, related_name="entries")
    account = models.ForeignKey(
        Account, on_delete=models.PROTECT, db_index=False, related_name="entries"
    )
    amount_pico = models.DecimalField(max_digits=38, decimal_places=0)

    class Meta:
        # An account's entries, the newest first: its statement, and the list by kinds of account.
        indexes = [models.Index(fields=["account", "-id"], name="entry_account")]

    def __str__(self) -> str:
        return f"{self.account} {self.amount_pico}"
