"""`manage.py seed_demo --print-json`: demo tenants, keys and people; prints what was newly made."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.utils import timezone

from gateway.demo import seed as demo_seed


class Command(BaseCommand):
    help = "Make the demo tenants, an admin and a worker key, unless they exist."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--print-json", action="store_true", help="print only JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        made = demo_seed.seed(now=timezone.now())
        if options["print_json"]:
            self.stdout.write(json.dumps(made) if made else "", ending="")
            return
        for name, value in made.items():
            self.stdout.write(f"{name}: {value}")
