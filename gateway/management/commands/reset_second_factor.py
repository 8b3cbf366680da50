"""`manage.py reset_second_factor NAME`: for somebody who lost the device and the recovery codes.

Whoever may run this on the machine may do anything with it. The person sets up another at the next
sign-in, where one is demanded.
"""

import getpass
from typing import Any

from allauth.mfa.models import Authenticator
from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction
from django.utils import timezone

from billing import audit


class Command(BaseCommand):
    help = "Take a person's second factors and recovery codes away."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="the name that the person signs in with")

    def handle(self, *args: Any, **options: Any) -> None:
        name = options["name"]
        user = User.objects.filter(username=name).first()
        if user is None:
            raise CommandError(f"there is nobody called {name}")
        with transaction.atomic():
            count, _ = Authenticator.objects.filter(user=user).delete()
            if count:
                audit.record(
                    actor=f"{getpass.getuser()} at the machine",
                    action="second_factor.reset",
                    subject=f"second factors of {name}",
                    now=timezone.now(),
                )
        self.stdout.write(f"{count} taken away" if count else "there was none")
