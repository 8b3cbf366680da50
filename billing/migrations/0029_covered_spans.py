"""What an invoice covers stands in rows that PostgreSQL keeps from overlapping."""

import datetime

import django.db.models.deletion
from django.apps.registry import Apps
from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

BEGINNING = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)

# int8range instead of plain equality: the embedded PostgreSQL has no btree_gist.
GUARDS = """
ALTER TABLE billing_coveredspan ADD CONSTRAINT covered_span_once EXCLUDE USING gist (
    int8range(tenant_id, tenant_id, '[]') WITH &&,
    tstzrange(occurred_from, occurred_until) WITH &&,
    int8range(posted_after, posted_upto, '(]') WITH &&
) WHERE (is_live);
CREATE FUNCTION billing_covered_span_stands() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    span billing_coveredspan := CASE WHEN TG_OP = 'INSERT' THEN NEW ELSE OLD END;
    state text := (SELECT i.state FROM billing_invoice i WHERE i.id = span.invoice_id);
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF state <> 'void' OR NEW.is_live
            OR to_jsonb(OLD) - 'is_live' <> to_jsonb(NEW) - 'is_live' THEN
            RAISE EXCEPTION 'what an invoice covers only ends by voiding it'
                USING ERRCODE = 'restrict_violation';
        END IF;
        RETURN NEW;
    END IF;
    IF state <> 'draft' THEN
        RAISE EXCEPTION 'what an issued invoice covers stands'
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN span;
END $$;
"""
ZONES = """
ALTER TABLE billing_invoice DISABLE TRIGGER invoice_stands;
UPDATE billing_invoice i SET time_zone = t.time_zone FROM billing_tenant t WHERE t.id = i.tenant_id;
ALTER TABLE billing_invoice ENABLE TRIGGER invoice_stands;
"""

Span = tuple[int, int, datetime.datetime, datetime.datetime]


def left_of(pieces: list[Span], taken: list[Span]) -> list[Span]:
    for after, upto, begin, end in taken:
        found = []
        for low, high, first, last in pieces:
            start, stop = max(first, begin), min(last, end)
            bottom, top = max(low, after), min(high, upto)
            if start >= stop or bottom >= top:
                found.append((low, high, first, last))
                continue
            found += [
                (low, high, first, start),
                (low, high, stop, last),
                (low, bottom, start, stop),
                (top, high, start, stop),
            ]
        pieces = [p for p in found if p[0] < p[1] and p[2] < p[3]]
    return pieces


def cover(apps: Apps, _: BaseDatabaseSchemaEditor) -> None:
    """What two invoices had both covered stays with the one that was made first."""
    Invoice = apps.get_model("billing", "Invoice")
    CoveredSpan = apps.get_model("billing", "CoveredSpan")
    taken: dict[int, list[Span]] = {}
    for invoice in Invoice.objects.order_by("pk"):
        upto, end = invoice.upto_transfer, invoice.period_end
        before = min(invoice.from_end, end)
        both: list[Span] = [
            (0, upto, max(before, BEGINNING), end),
            (invoice.from_transfer, upto, BEGINNING, before),
        ]
        mine = [s for s in both if s[0] < s[1] and s[2] < s[3]]
        is_live = invoice.state != "void"
        if is_live:
            others = taken.setdefault(invoice.tenant_id, [])
            mine = left_of(mine, others)
            others += mine
        CoveredSpan.objects.bulk_create(
            CoveredSpan(
                invoice=invoice,
                tenant_id=invoice.tenant_id,
                posted_after=after,
                posted_upto=last,
                occurred_from=begin,
                occurred_until=until,
                is_live=is_live,
            )
            for after, last, begin, until in mine
        )


class Migration(migrations.Migration):
    dependencies = [("billing", "0028_no_usage_drained_brin")]

    operations = [
        migrations.AddField(
            model_name="invoice",
            name="time_zone",
            field=models.CharField(default="UTC", max_length=64),
        ),
        migrations.RunSQL(ZONES, reverse_sql=migrations.RunSQL.noop),
        migrations.CreateModel(
            name="CoveredSpan",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("occurred_from", models.DateTimeField()),
                ("occurred_until", models.DateTimeField()),
                ("posted_after", models.BigIntegerField()),
                ("posted_upto", models.BigIntegerField()),
                ("is_live", models.BooleanField(default=True)),
                (
                    "invoice",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="spans",
                        to="billing.invoice",
                    ),
                ),
                (
                    "tenant",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="billing.tenant",
                    ),
                ),
            ],
            options={
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(
                            ("occurred_from__lt", models.F("occurred_until")),
                            ("posted_after__lt", models.F("posted_upto")),
                        ),
                        name="covered_span_not_empty",
                    )
                ]
            },
        ),
        migrations.RunSQL(GUARDS, reverse_sql=migrations.RunSQL.noop),
        migrations.RunPython(cover, migrations.RunPython.noop),
    ]
