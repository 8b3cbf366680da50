"""Small seals of all rows of money, in a chain, and what was found altered since."""

from django.db import models
from django.db.models import Q


class RowSeal(models.Model):
    """What rows of one kind with ids in [first, after) came to when they were sealed: how many, and
    the sum of their hashes; and what all seals of the kind before came to. `chain` is a hash over
    all that up to `after`, so that it stays when neighbours are merged into one."""

    what = models.CharField(max_length=40)
    first = models.BigIntegerField()
    after = models.BigIntegerField()
    rows = models.BigIntegerField()
    digest = models.DecimalField(max_digits=38, decimal_places=0)
    rows_before = models.BigIntegerField()
    digest_before = models.DecimalField(max_digits=38, decimal_places=0)
    chain = models.BinaryField(max_length=32)
    sealed_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["what", "first"], name="row_seal_once"),
        ]
        indexes = [models.Index(fields=["what", "id"], name="row_seal_in_order")]

    def __str__(self) -> str:
        return f"{self.what} {self.first} to {self.after - 1}"


class Finding(models.Model):
    """Sealed rows that are no longer what they were, or a register that is wrong: then `first` is
    its tenant. It stays until somebody says what it was; `digest` is what the rows came to then,
    and from then on have to, or the most that the register had."""

    what = models.CharField(max_length=40)
    first = models.BigIntegerField()
    after = models.BigIntegerField()
    # A name of 200 letters, each of four bytes and so twelve characters of a key.
    register = models.CharField(max_length=2500, blank=True, default="", db_default="")
    detail = models.CharField(max_length=400)
    found_at = models.DateTimeField()
    seen_at = models.DateTimeField()
    digest = models.DecimalField(max_digits=38, decimal_places=0, null=True)
    reason = models.CharField(max_length=200, blank=True)
    resolved_by = models.CharField(max_length=150, blank=True)
    resolved_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["what", "first", "register"],
                condition=Q(resolved_at=None),
                name="finding_open_once",
            ),
        ]
        indexes = [
            models.Index(fields=["what", "first"], name="finding_of_rows"),
            models.Index(fields=["resolved_at"], name="finding_resolved"),
        ]

    def __str__(self) -> str:
        if self.register:
            return f"{self.what} {self.register}"
        return f"{self.what} {self.first} to {self.after - 1}"
