"""`manage.py rate_usage FILE`: real answers rated by us and by genai-prices, row by row."""

from argparse import ArgumentParser
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from providers.imports import usage_rating
from providers.imports.usage_rating import DIFFERENT, SAME, Skipped, Verdict


class Command(BaseCommand):
    help = (
        "Rate a JSON file of usage bodies (the form of tests/data/usage_bodies.json) and print "
        "every row that is not billed like genai-prices bills it, or is skipped, and why."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument("--at", help="moment of the prices, ISO 8601, UTC; now if left out")
        parser.add_argument("--all", action="store_true", help="print equal rows too")

    def handle(self, *args: Any, file: Path, at: str | None, **options: Any) -> None:
        when = _moment(at)
        try:
            with file.open("rb") as opened:
                body = opened.read(usage_rating.FILE_BYTES_MAX + 1)
            if len(body) > usage_rating.FILE_BYTES_MAX:
                raise CommandError(f"larger than {usage_rating.FILE_BYTES_MAX:,} bytes")
            rows = usage_rating.decode(body)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
            raise CommandError(f"not a file of usage bodies: {problem}") from problem
        found = list(usage_rating.verdicts(rows, when=when))
        for verdict in found:
            if options["all"] or verdict.kind != SAME:
                self.stdout.write(_line(verdict))
        counts = ", ".join(
            f"{kind} {number:,}" for kind, number in sorted(usage_rating.tally(found).items())
        )
        rated = sum(not isinstance(verdict, Skipped) for verdict in found)
        self.stdout.write(f"{len(rows):,} rows, {rated:,} readings at {when}: {counts}")


def _moment(at: str | None) -> datetime:
    if at is None:
        return timezone.now()
    try:
        moment = datetime.fromisoformat(at)
    except ValueError as wrong:
        raise CommandError(f"--at is no moment: {at}") from wrong
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _line(verdict: Verdict | Skipped) -> str:
    if isinstance(verdict, Skipped):
        return f"row {verdict.row} {verdict.model}: {verdict.kind}, {verdict.why}"
    told = f"row {verdict.row} {verdict.provider}/{verdict.flavor} {verdict.model}: {verdict.kind}"
    if verdict.kind in (DIFFERENT, SAME):
        return f"{told}, ours ${verdict.ours:f}, theirs ${verdict.theirs or 0:f}"
    return f"{told}, theirs ${verdict.theirs or 0:f}: {verdict.why}"
