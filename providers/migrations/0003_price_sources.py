"""Where others' prices are read every day."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("providers", "0002_pool_load"),
    ]

    operations = [
        migrations.CreateModel(
            name="PriceSource",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("name", models.SlugField(max_length=60, unique=True)),
                ("url", models.CharField(max_length=500)),
                ("provider", models.SlugField(default="openrouter", max_length=80)),
                ("is_on", models.BooleanField(default=True)),
                ("is_private", models.BooleanField(default=False)),
                ("tried_at", models.DateTimeField(null=True)),
                ("read_at", models.DateTimeField(null=True)),
                ("outcome", models.CharField(blank=True, max_length=300)),
            ],
        ),
    ]
