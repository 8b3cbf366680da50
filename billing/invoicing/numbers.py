"""Document numbers: one series per kind and year, without gaps, in the order of issue."""

from datetime import datetime

from billing.models import NumberSeries


def next_number(document: str, now: datetime) -> str:
    """Takes the next number in the caller's transaction: rolled back, it is given out again."""
    NumberSeries.objects.get_or_create(document=document, year=now.year)
    series = NumberSeries.objects.select_for_update().get(document=document, year=now.year)
    series.last += 1
    series.save(update_fields=["last"])
    return f"{document}-{now.year}-{series.last:06d}"
