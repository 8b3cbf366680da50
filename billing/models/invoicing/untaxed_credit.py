"""Credit that has borne no tax yet."""

from django.db import models

from billing.models.tenants import CreditGrant


class UntaxedCredit(models.Model):
    """What of a grant has borne no tax: usage that it covers is taxed on its invoice. Immutable.

    Below zero where such credit went back."""

    grant = models.OneToOneField(CreditGrant, on_delete=models.PROTECT, related_name="untaxed")
    amount_pico = models.DecimalField(max_digits=38, decimal_places=0)

    def __str__(self) -> str:
        return f"{self.amount_pico} of grant {self.grant_id}"
