"""Rebuilds Redis' registers from Postgres, what is unread, and the holds that are open."""

from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand

from billing import registers
from billing.operations import rebuild
from billing.redis.connection import connection


class Command(BaseCommand):
    help = "Rebuild the registers of every shard; requests are refused until theirs is done."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--if-cold", action="store_true", help="only shards that do not know their epoch"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        now = datetime.now(UTC)
        client = connection()
        if options["if_cold"]:
            done = rebuild.rebuild_cold(client, now=now)
        else:
            done = list(range(registers.SHARDS))
            for shard in done:
                rebuild.rebuild(client, shard, now=now)
        self.stdout.write(f"{len(done)} of {registers.SHARDS} shards rebuilt")
