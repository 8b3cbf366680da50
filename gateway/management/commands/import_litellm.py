"""`manage.py import_litellm CONFIG`: what of a LiteLLM configuration becomes ours, and what not."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import msgspec
from django.core.management.base import BaseCommand, CommandError

from gateway.declared import document, litellm


class Command(BaseCommand):
    help = "Report what maps, and write a declarative file for `manage.py apply`."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("config", type=Path)
        parser.add_argument("--tenant", default="litellm", help="the tenant's slug")
        parser.add_argument("--out", type=Path, help="where the declarative file goes")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            found = litellm.read(options["config"].read_bytes(), slug=options["tenant"])
            declared = msgspec.yaml.encode({"tenants": [found.tenant]})
            document.read(declared)
        except (OSError, document.DocumentRefused) as problem:
            raise CommandError(str(problem)) from problem
        for title, lines in (("Mapped", found.mapped), ("Not mapped", found.unmapped)):
            self.stdout.write(f"{title}: {len(lines)}")
            for line in lines:
                self.stdout.write(f"  {line}")
        if options["out"] is not None:
            options["out"].write_bytes(declared)
            self.stdout.write(f"Look at {options['out']}, then: manage.py apply {options['out']}")
