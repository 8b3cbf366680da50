"""Indexes by which the operators' lists are filtered, made while rows go on being written."""

from django.contrib.postgres.operations import AddIndexConcurrently
from django.db import migrations, models


class Migration(migrations.Migration):
    atomic = False

    dependencies = [
        ("billing", "0053_estimated_index"),
    ]

    operations = [
        AddIndexConcurrently(
            model_name="adjustmentnote",
            index=models.Index(fields=["cause", "-id"], name="adjustment_cause"),
        ),
        AddIndexConcurrently(
            model_name="claim",
            index=models.Index(fields=["supplier", "-id"], name="claim_supplier"),
        ),
        AddIndexConcurrently(
            model_name="claim",
            index=models.Index(fields=["decided_at"], name="claim_decided"),
        ),
        AddIndexConcurrently(
            model_name="creditgrant",
            index=models.Index(fields=["created_at"], name="grant_created"),
        ),
        AddIndexConcurrently(
            model_name="finding",
            index=models.Index(fields=["resolved_at"], name="finding_resolved"),
        ),
        AddIndexConcurrently(
            model_name="invoice",
            index=models.Index(fields=["state", "-id"], name="invoice_state"),
        ),
        AddIndexConcurrently(
            model_name="payout",
            index=models.Index(fields=["paid_on"], name="payout_day"),
        ),
        AddIndexConcurrently(
            model_name="priceversion",
            index=models.Index(fields=["service_tier", "-id"], name="price_version_tier"),
        ),
        AddIndexConcurrently(
            model_name="priceversion",
            index=models.Index(fields=["free", "-id"], name="price_version_free"),
        ),
        AddIndexConcurrently(
            model_name="priceversion",
            index=models.Index(fields=["source", "-id"], name="price_version_source"),
        ),
        AddIndexConcurrently(
            model_name="processorevent",
            index=models.Index(fields=["state", "-id"], name="processor_event_state"),
        ),
        AddIndexConcurrently(
            model_name="processorevent",
            index=models.Index(fields=["kind", "-id"], name="processor_event_kind"),
        ),
        AddIndexConcurrently(
            model_name="topup",
            index=models.Index(fields=["state", "-id"], name="topup_state"),
        ),
        AddIndexConcurrently(
            model_name="topup",
            index=models.Index(fields=["is_automatic", "-id"], name="topup_automatic"),
        ),
        AddIndexConcurrently(
            model_name="transfer",
            index=models.Index(fields=["code", "-id"], name="transfer_code"),
        ),
        AddIndexConcurrently(
            model_name="volumerebate",
            index=models.Index(fields=["month"], name="rebate_month"),
        ),
    ]
