"""Tells Redis again what it refused to settle, or lets it go."""

import uuid
from argparse import ArgumentParser
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from billing.models import RefusedSettle
from billing.operations import refused_settles
from billing.redis.connection import connection

ACTOR = "manage.py"


class Command(BaseCommand):
    help = "Tell Redis again every settle that it refused, or these; told twice, it is booked once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("request_id", nargs="*", type=uuid.UUID, help="default: all that wait")
        parser.add_argument("--let-go", metavar="REASON", help="book nothing: the house pays")

    def handle(self, *args: Any, **options: Any) -> None:
        now = datetime.now(UTC)
        refused_settles.take_up(connection(), now=now)
        waiting = RefusedSettle.objects.filter(state=RefusedSettle.State.WAITING)
        chosen = options["request_id"] or list(
            waiting.order_by("settled_at").values_list("pk", flat=True)
        )
        if options["let_go"]:
            if not options["request_id"]:
                raise CommandError("name what is let go")
            done = refused_settles.let_go(chosen, actor=ACTOR, reason=options["let_go"], now=now)
            self.stdout.write(f"{done} let go")
            return
        answers = refused_settles.replay(connection(), chosen, actor=ACTOR, now=now)
        for request_id, answer in answers.items():
            self.stdout.write(f"{request_id}: {answer}")
        booked = sum(answer == refused_settles.BOOKED for answer in answers.values())
        self.stdout.write(f"{booked} of {len(answers)} booked")
        if booked < len(answers):
            raise CommandError("some are still refused")
