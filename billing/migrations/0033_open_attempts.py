"""What was taken back so far, and the automatic purchases whose outcome nobody has asked for."""

from django.db import migrations

TAKEN_BACK = """
UPDATE billing_topup SET returned_cents = refunded_cents WHERE state = 'paid';
"""
# The newest of each tenant, which may have been charged: it is looked up, and never sent again once
# it is a day old.
OPEN = """
UPDATE billing_topup SET due_at = now(), payer_reference = card.payer_reference,
    card_reference = card.card_reference
FROM billing_recharge card
WHERE card.tenant_id = billing_topup.tenant_id AND card.card_reference <> '' AND billing_topup.id IN (
    SELECT max(id) FROM billing_topup WHERE state = 'started' AND is_automatic GROUP BY tenant_id
);
"""


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0032_payments_in_any_order"),
    ]

    operations = [
        migrations.RunSQL(TAKEN_BACK, reverse_sql=migrations.RunSQL.noop),
        migrations.RunSQL(OPEN, reverse_sql=migrations.RunSQL.noop),
    ]
