"""`printf %s "$OPENAI_API_KEY" | manage.py add_credential openai`: makes a provider callable.

The secret is read from standard input: a command line can be read by every user of the machine.
"""

import difflib
import getpass
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import transaction
from django.utils import timezone

from billing import audit
from providers.market import credentials, offers
from providers.models import Provider

NAMED_MAX = 5


class Command(BaseCommand):
    help = "Store a provider's API key, read from standard input, and say what it makes callable."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("provider", help="the provider's name in addresses, such as openai")
        parser.add_argument("--label", default="main", help="what the key is called here")

    def handle(self, *args: Any, **options: Any) -> None:
        provider = _provider(options["provider"])
        secret = getpass.getpass("API key: ") if sys.stdin.isatty() else sys.stdin.read()
        try:
            with transaction.atomic():
                made = credentials.store(provider=provider, label=options["label"], secret=secret)
                audit.record(
                    actor="add_credential",
                    action="credential.set",
                    subject=provider.slug,
                    after={"label": made.label},
                    now=timezone.now(),
                )
        except ValueError as problem:
            raise CommandError(str(problem)) from None
        self.stdout.write(_callable_now(provider))


def _provider(slug: str) -> Provider:
    known = Provider.objects.filter(kind=Provider.Kind.EXTERNAL).exclude(wire=Provider.Wire.NONE)
    provider = known.filter(slug=slug).first()
    if provider is None:
        names = sorted(known.values_list("slug", flat=True))
        near = difflib.get_close_matches(slug, names, n=3) or names
        raise CommandError(f"No provider {slug!r} can be called. There are: {', '.join(near)}")
    return provider


def _callable_now(provider: Provider) -> str:
    """How many of its models can be asked for, and some of their names."""
    mine = [view for view in offers.views(timezone.now()) if view.provider == provider.slug]
    names = [view.model for view in mine if not view.not_routable]
    if not names:
        why = sorted({view.not_routable for view in mine}) or ["it sells nothing here"]
        return f"Stored, and nothing of {provider.name} can be called yet: {'; '.join(why)}"
    shown = ", ".join(names[:NAMED_MAX])
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return f"{provider.name}: {len(names)} models can be called now: {shown}{more}"
