"""Every address that there is, kind by kind, asked as who may."""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from django.contrib import admin
from django.contrib.auth.models import User
from django.test import Client

from bench.pages.asking import Asker, Cost
from tests.gateway import addresses
from tests.gateway.long_history import Known

# They are asked with POST, or there is no such thing in this house.
NOT_READ: Final = (404, 405)


def costs(
    known: Known, postgres: int, parts: Sequence[str], *, limit_ms: float
) -> Iterator[tuple[str, list[Cost]]]:
    """By kind; with `parts`, of the addresses that hold one of them alone."""
    for kind, user, wanted in _kinds(known):
        client = Client(raise_request_exception=False)
        client.force_login(User.objects.get(username=user))
        asker = Asker(client, postgres)
        chosen = [a for a in wanted(client) if not parts or any(part in a for part in parts)]
        asked = [asker.cost(address, limit_ms=limit_ms) for address in dict.fromkeys(chosen)]
        if read := [cost for cost in asked if cost.status not in NOT_READ]:
            yield kind, read


def _kinds(known: Known) -> Iterator[tuple[str, str, Callable[[Client], list[str]]]]:
    models = list(admin.site._registry)
    yield "pages", known.member, lambda _: addresses.of_pages(known)
    yield "requests, filtered", known.member, lambda _: addresses.of_request_list(known)
    yield "management API", known.member, lambda _: addresses.of_calls(known)
    yield "admin: overviews", known.operator, lambda _: addresses.of_admin()
    yield (
        "admin: rows",
        known.operator,
        lambda _: [address for model in models for address in addresses.of_objects(model)],
    )
    for model in models:
        yield (
            f"admin: {model._meta.verbose_name_plural}",
            known.operator,
            lambda client, model=model: addresses.of_list(client, model),
        )
