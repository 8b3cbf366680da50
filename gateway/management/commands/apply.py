"""`manage.py apply FILE`: brings tenants, teams, limits and keys to what a file declares."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from billing.errors import BillingError
from gateway.declared import document, plan
from gateway.declared.change import Change, Run
from gateway.tenants.keys import KeyRefused
from gateway.tenants.policies import PolicyRefused

BY = "declarative file"


class Command(BaseCommand):
    help = "Show what a declarative file would change (--plan), or make it so."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--plan", action="store_true", help="only show the changes")
        parser.add_argument(
            "--secrets", type=Path, help="where new keys' secrets go; made readable by you alone"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        now = timezone.now()
        try:
            declared = document.read(options["file"].read_bytes())
            changes = plan.plan(declared, now=now)
        except (OSError, document.DocumentRefused) as problem:
            raise CommandError(str(problem)) from problem
        for change in changes:
            self.stdout.write(str(change))
        if options["plan"] or not changes:
            self.stdout.write(f"{len(changes)} changes" + (" to make" if options["plan"] else ""))
            return
        self._apply(changes, Run(actor=BY, now=now), options["secrets"])

    def _apply(self, changes: list[Change], run: Run, secrets: Path | None) -> None:
        try:
            plan.apply(changes, run)
        except (BillingError, KeyRefused, PolicyRefused, document.DocumentRefused) as refusal:
            raise CommandError(f"stopped: {refusal}. What was made stays; apply again.") from (
                refusal
            )
        finally:
            self._tell(run.secrets, secrets)
        self.stdout.write(f"{len(changes)} changes made")

    def _tell(self, made: dict[str, str], path: Path | None) -> None:
        """Secrets are stored nowhere else, so they are told even where something failed."""
        if not made:
            return
        lines = "".join(f"{name}={secret}\n" for name, secret in made.items())
        if path is None:
            self.stdout.write(f"New keys, shown once:\n{lines}")
            return
        path.touch(mode=0o600)
        path.chmod(0o600)
        with path.open("a", encoding="utf-8") as file:
            file.write(lines)
        self.stdout.write(f"{len(made)} secrets are in {path}")
