"""Holds the database against an anchor that was given before, and every row against its seal."""

import sys
from argparse import ArgumentParser
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.errors import AnchorRefused
from billing.integrity import anchors


class Command(BaseCommand):
    help = "Read all sealed rows again, and hold them against an anchor that was given before."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", nargs="?", type=Path, help="default: standard input")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            with options["file"].open() if options["file"] else sys.stdin as given:
                anchor = given.read(anchors.TEXT_LENGTH_MAX)
            wrong = anchors.check(anchor, now=datetime.now(UTC))
        except (OSError, UnicodeDecodeError, AnchorRefused) as refusal:
            raise CommandError(str(refusal)) from refusal
        for words in wrong:
            self.stdout.write(words)
        if wrong:
            raise CommandError("the database is not as it was when this anchor was given")
        self.stdout.write("all sealed rows are as they were when this anchor was given")
