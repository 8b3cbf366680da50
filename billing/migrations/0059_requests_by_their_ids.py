"""Requests are found by the time inside their ids, also where lists and periods went by another
time or by arrival: two indexes fewer for every event that is written.
"""

from django.contrib.postgres.operations import AddIndexConcurrently, RemoveIndexConcurrently
from django.db import migrations, models

# The least id of a day's requests; of before 1970 there are none.
FIRST_ID_OF = """
CREATE FUNCTION billing_first_id_of(day date) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT
    PARALLEL SAFE AS $$
    SELECT (lpad(to_hex(greatest(day - date '1970-01-01', 0)::bigint * 86400000), 12, '0')
        || repeat('0', 20))::uuid
$$;
"""
UNUSUAL = models.Q(("outcome", "ok"), _negated=True)
QUARANTINED = models.Q(("state", "quarantined"))
MADE = (
    models.Index(fields=["outcome", "request_id"], condition=UNUSUAL, name="usage_by_outcome"),
    models.Index(fields=["supplier", "request_id"], name="usage_by_supplier"),
    models.Index(fields=["tenant", "-id"], condition=QUARANTINED, name="usage_in_quarantine"),
)
GONE = (
    "usage_outcome",
    "usage_supplier",
    "usage_quarantined",
    "billing_usa_tenant__45a0f8_idx",
    "billing_usa_tenant__4eeabd_idx",
)


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("billing", "0058_seals_add_up")]

    operations = [
        migrations.RunSQL(FIRST_ID_OF, reverse_sql="DROP FUNCTION billing_first_id_of(date);"),
        *(AddIndexConcurrently("usageevent", index) for index in MADE),
        *(RemoveIndexConcurrently("usageevent", name) for name in GONE),
    ]
