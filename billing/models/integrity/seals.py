"""What an audit found in a block of consecutive rows when it had read all of them.

Later audits add these up instead of reading the rows again, and read some of them again each time.
Written by `billing.integrity.sealing`; a trigger moves the seals of an event that is resolved. A
digest is the sum of the rows' hashes, each of all that the row says; a seal from before there were
any has none until its block is read again.
"""

from django.db import models


class EventSeal(models.Model):
    """The usage events of one tenant and day within a block of event ids."""

    block = models.BigIntegerField()
    tenant = models.ForeignKey(
        "billing.Tenant", on_delete=models.PROTECT, db_constraint=False, db_index=False
    )
    day = models.DateField()
    attempts = models.BigIntegerField()
    requests = models.BigIntegerField()
    cost_pico = models.DecimalField(max_digits=38, decimal_places=0)
    supplier_cost_pico = models.DecimalField(max_digits=38, decimal_places=0)
    overage_pico = models.DecimalField(max_digits=38, decimal_places=0)
    debited_pico = models.DecimalField(max_digits=38, decimal_places=0)
    digest = models.DecimalField(max_digits=38, decimal_places=0, null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["block", "tenant", "day"], name="event_seal_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.block} {self.tenant_id} {self.day}"


class EntrySeal(models.Model):
    """The entries of one account and code within a block of transfer ids."""

    block = models.BigIntegerField()
    account = models.ForeignKey(
        "billing.Account", on_delete=models.PROTECT, db_constraint=False, db_index=False
    )
    code = models.CharField(max_length=16)
    entries = models.BigIntegerField()
    amount_pico = models.DecimalField(max_digits=38, decimal_places=0)
    digest = models.DecimalField(max_digits=38, decimal_places=0, null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["block", "account", "code"], name="entry_seal_unique"),
        ]

    def __str__(self) -> str:
        return f"{self.block} {self.account_id} {self.code}"
