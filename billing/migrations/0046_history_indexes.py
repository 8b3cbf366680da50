"""Pages of one tenant's requests and of the house's events read what they show, not the history."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models

UNUSUAL = models.Q(("outcome", "ok"), _negated=True)
UNCERTAIN = (
    models.Q(("outcome", "unknown"))
    | models.Q(("state", "quarantined"))
    | models.Q(("usage_source__in", ["estimated", "counted"]))
)
INDEXES = (
    models.Index(fields=["tenant", "request_id"], name="usage_requests"),
    models.Index(fields=["tenant", "model", "request_id"], name="usage_model_requests"),
    models.Index(fields=["tenant", "supplier", "request_id"], name="usage_supplier_requests"),
    models.Index(fields=["tenant", "api_key_id", "request_id"], name="usage_key_requests"),
    models.Index(
        fields=["tenant", "outcome", "request_id"], condition=UNUSUAL, name="usage_outcome_requests"
    ),
    models.Index(fields=["outcome", "-id"], condition=UNUSUAL, name="usage_outcome"),
    models.Index(fields=["supplier", "-id"], name="usage_supplier"),
    models.Index(fields=["supplier", "day"], condition=UNCERTAIN, name="usage_uncertain"),
)
OTHERS = {
    "usageday": (
        models.Index(fields=["supplier", "day"], name="usage_day_supplier"),
        models.Index(fields=["sku", "day"], name="usage_day_sku"),
    ),
    "transfer": (models.Index(fields=["tenant", "id"], name="transfer_tenant"),),
    "auditentry": (models.Index(fields=["action", "-id"], name="audit_action"),),
}


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("billing", "0045_audit_kept_for_years")]

    operations = [
        AddIndexConcurrently(table, index)
        for table, indexes in {"usageevent": INDEXES, **OTHERS}.items()
        for index in indexes
    ]
