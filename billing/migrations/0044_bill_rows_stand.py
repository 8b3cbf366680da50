"""Each row of a bill once, used only with its day, carried only with its sum."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0043_bill_rows"),
    ]

    operations = [
        migrations.AddConstraint(
            model_name="providerbillrow",
            constraint=models.UniqueConstraint(
                fields=("bill", "number"), name="provider_bill_row_once"
            ),
        ),
        migrations.AddConstraint(
            model_name="providerbillrow",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("state", "used"), _negated=True),
                    ("day__isnull", False),
                    _connector="OR",
                ),
                name="provider_bill_used_has_day",
            ),
        ),
        migrations.AddConstraint(
            model_name="providerbillrow",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("state", "carried"), _negated=True),
                    ("cost_pico__isnull", False),
                    _connector="OR",
                ),
                name="provider_bill_carried_has_cost",
            ),
        ),
    ]
