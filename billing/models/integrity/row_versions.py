"""What rows of money that may change have said, one version after the other."""

from django.db import models


class RowVersion(models.Model):
    """What a row said from `kept_at` on; null facts: it was deleted. Written by a trigger in the
    transaction of the change. Append-only."""

    table_name = models.CharField(max_length=63)
    row_id = models.BigIntegerField()
    facts = models.JSONField(null=True)
    kept_at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["table_name", "row_id", "id"], name="row_version_latest")]

    def __str__(self) -> str:
        return f"{self.table_name} {self.row_id} from {self.kept_at:%Y-%m-%d %H:%M:%S}"
