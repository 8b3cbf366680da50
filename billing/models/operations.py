"""How the money machine itself is doing: shard epochs, invariants, task runs."""

from django.db import models


class ShardEpoch(models.Model):
    """The epoch that Redis must know for this shard; written by a rebuild, and by nothing else.

    Without one it is cold. `failed_at`: when a rebuild last tried and could not.
    """

    shard = models.PositiveSmallIntegerField(primary_key=True)
    epoch = models.CharField(max_length=32, blank=True, default="")
    rebuilt_at = models.DateTimeField(null=True)
    failed_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"s{self.shard:02d} {self.epoch}"


class InvariantCheck(models.Model):
    """The latest result of one ledger invariant. All rows up to `verified_until` were read for it
    and kept it, but for the broken ones."""

    name = models.CharField(max_length=60, primary_key=True)
    holds = models.BooleanField()
    detail = models.CharField(max_length=400, blank=True)
    checked_at = models.DateTimeField()
    verified_until = models.DateTimeField(null=True)
    broken_ids = models.JSONField(default=list, db_default=models.Value([], models.JSONField()))

    class Meta:
        verbose_name = "invariant"
        verbose_name_plural = "invariants"

    def __str__(self) -> str:
        return self.name


class TaskRun(models.Model):
    """The latest run of one periodic task: when, how late, how long, and its last failure."""

    name = models.CharField(max_length=80, primary_key=True)
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    lag_ms = models.BigIntegerField(default=0)
    failed_at = models.DateTimeField(null=True)
    failure = models.CharField(max_length=400, blank=True)

    def __str__(self) -> str:
        return self.name
