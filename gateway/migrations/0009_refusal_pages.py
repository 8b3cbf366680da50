"""Pages of one tenant's refusals read what they show."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [("gateway", "0008_sign_in_rules")]

    operations = [
        AddIndexConcurrently(
            "refusal", models.Index(fields=["tenant", "request_id"], name="refusal_requests")
        ),
        AddIndexConcurrently(
            "refusal", models.Index(fields=["tenant", "model", "request_id"], name="refusal_model")
        ),
        AddIndexConcurrently(
            "refusal",
            models.Index(fields=["tenant", "api_key_id", "request_id"], name="refusal_key"),
        ),
        AddIndexConcurrently("refusal", models.Index(fields=["code", "-id"], name="refusal_code")),
        AddIndexConcurrently(
            "refusal", models.Index(fields=["status", "-id"], name="refusal_status")
        ),
    ]
