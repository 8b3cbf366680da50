"""Keys that keys made before their line was kept: `created_by` names the maker.

The makers' caps then count more than Redis knows, so their shards are rebuilt: cold by another
epoch, they refuse requests for the seconds that a rebuild takes.
"""

from typing import Any

from django.db import migrations

SHARDS = 64
MADE_BY_KEY = "key "


def keep_lines(apps: Any, schema_editor: Any) -> None:
    api_key = apps.get_model("gateway", "ApiKey")
    made_key = apps.get_model("billing", "MadeKey")
    by_public_id = {
        (tenant, public_id): pk
        for pk, tenant, public_id in api_key.objects.values_list("pk", "tenant_id", "public_id")
    }
    made = api_key.objects.filter(created_by__startswith=MADE_BY_KEY)
    maker_of = {
        pk: (tenant, by_public_id[tenant, created_by.removeprefix(MADE_BY_KEY)])
        for pk, tenant, created_by in made.values_list("pk", "tenant_id", "created_by")
        if (tenant, created_by.removeprefix(MADE_BY_KEY)) in by_public_id
    }
    rows = []
    for pk, (tenant, maker) in maker_of.items():
        while maker is not None:
            rows.append(made_key(tenant_id=tenant, api_key_id=pk, maker_id=maker))
            maker = maker_of[maker][1] if maker in maker_of else None
    made_key.objects.bulk_create(rows)
    shards = {row.tenant_id % SHARDS for row in rows}
    epochs = apps.get_model("billing", "ShardEpoch")
    epochs.objects.filter(shard__in=shards).update(epoch="made-keys")


class Migration(migrations.Migration):
    dependencies = [
        ("billing", "0037_made_keys"),
        ("gateway", "0006_operators_calls"),
    ]

    operations = [migrations.RunPython(keep_lines, migrations.RunPython.noop)]
