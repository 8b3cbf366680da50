"""`manage.py attach_pool NAME BASE_URL --input-usd 0.10 --output-usd 0.40`: attach a server."""

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from providers.machines import pools
from providers.machines.addresses import AddressRefused
from providers.machines.pool_listing import CONTEXT_MAX, PoolRefused


class Command(BaseCommand):
    help = "Attach a server (vLLM, SGLang, TGI, llama.cpp, transformers serve) as a seller."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("name", help="the seller's name, lower case")
        parser.add_argument(
            "base_url", help="with its version path, such as http://10.0.0.5:8000/v1"
        )
        parser.add_argument(
            "--bearer-file", type=Path, help="file with the server's API key, where it asks for one"
        )
        parser.add_argument(
            "--model",
            action="append",
            default=[],
            help="a model it serves; repeatable, for servers that do not list what they serve",
        )
        parser.add_argument(
            "--context-length",
            action="append",
            default=[],
            metavar="[MODEL=]TOKENS",
            help="how much fits, where the server does not say so; repeatable, by model",
        )
        parser.add_argument(
            "--cache-salt",
            choices=("yes", "no"),
            help="whether it keeps tenants apart by `cache_salt` (default: as its metrics say)",
        )
        parser.add_argument(
            "--fetches",
            action="store_true",
            help="let it fetch pictures by their address; its network must keep it from yours",
        )
        parser.add_argument("--input-usd", type=Decimal, required=True, help="$ per million")
        parser.add_argument("--output-usd", type=Decimal, required=True, help="$ per million")
        parser.add_argument("--cached-usd", type=Decimal, help="$ per million cached tokens")

    def handle(self, *args: Any, **options: Any) -> None:
        bearer_file: Path | None = options["bearer_file"]
        salted: str | None = options["cache_salt"]
        terms = pools.Terms(options["input_usd"], options["output_usd"], options["cached_usd"])
        try:
            bearer = bearer_file.read_text(encoding="utf-8").strip() if bearer_file else ""
            made = pools.attach(
                name=options["name"],
                base_url=options["base_url"],
                bearer=bearer,
                terms=terms,
                recorded_by="attach_pool",
                now=timezone.now(),
                facts=pools.Facts(
                    models=options["model"],
                    contexts=_contexts(options["context_length"]),
                    salted=None if salted is None else salted == "yes",
                    fetches=options["fetches"],
                ),
                tell=self.stderr.write,
            )
        except (PoolRefused, AddressRefused, OSError) as problem:
            raise CommandError(str(problem)) from None
        for offer in made:
            self.stdout.write(f"{offer.sku} sells {offer.model.slug}")


def _contexts(stated_lengths: Sequence[str]) -> dict[str, int]:
    """By model; of all under an empty name."""
    contexts = {}
    for stated in stated_lengths:
        model, _, tokens = stated.rpartition("=")
        if not tokens.isascii() or not tokens.isdigit() or not 1 <= int(tokens) <= CONTEXT_MAX:
            raise CommandError(f"{stated!r} is no context length; say 8192 or MODEL=8192")
        contexts[model] = int(tokens)
    return contexts
