"""No action of the console, the management API or the admin reads a history.

Held for every form of every page of the console as it stands there, for every writing method of the
API with a body made from its schema, and for every page and action of the admin: over 300,000
events. What an action did is undone, so that the next finds the same.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final
from urllib.parse import urljoin

import pytest
import redis
from django.contrib import admin
from django.db import transaction
from django.db.models import Model
from django.http import HttpResponseBase
from django.test import Client
from django.urls import reverse
from drf_spectacular.generators import SchemaGenerator

from gateway.api.urls import urlpatterns as api_urlpatterns
from tests.gateway import addresses, long_history, plans
from tests.gateway.html_forms import forms_of
from tests.gateway.long_history import MANY, History
from tests.services import Services

# Of an action that serves each of a page's rows.
ASKED_MAX: Final = 3 * MANY
# They ask the data plane, or end the session that asks.
NOT_SENT: Final = ("/playground/send/", "/logout/", "/start/key/", "/accounts/")
JSON: Final = "application/json"
WRITING: Final = ("post", "put", "patch", "delete")
# What a schema says of a value, and one that fits.
VALUES: Final = {"integer": 1, "number": 1, "boolean": True, "array": [], "object": {}}
FORMATS: Final = {"decimal": "1", "date": "2026-01-31", "date-time": "2026-01-31T12:00:00Z"}


@pytest.fixture(scope="module")
def history(committed: None, services: Services) -> Iterator[History]:
    with redis.Redis.from_url(services.redis.url) as client:
        yield long_history.fresh(client)
        client.flushall()


@contextmanager
def undone() -> Iterator[None]:
    """Services that insist on a commit of their own are undone all the same."""
    everything = transaction.atomic()
    everything._from_testcase = True  # type: ignore[attr-defined]
    with everything:
        yield
        transaction.set_rollback(True)


def wrong_with(act: Callable[[], HttpResponseBase]) -> list[str]:
    """What it reads that no action may; then it is undone."""
    with undone(), plans.work() as (asked, faults):
        answer = act()
        assert answer.status_code < 500, answer
    return faults + often(asked)


def often(asked: Counter[str]) -> list[str]:
    return [f"{times} times {sql[:300]}" for sql, times in asked.items() if times > ASKED_MAX]


def test_no_form_of_the_console_reads_a_history(history: History, client: Client) -> None:
    # given
    client.force_login(history.things.person.user)
    wrong, sent = {}, set()
    for page in addresses.of_pages(history.known):
        shown = client.get(page)
        if shown.status_code != 200 or shown.streaming or b"<form" not in shown.content:
            continue
        for form in forms_of(shown.content.decode()):
            address = urljoin(page, form.action) if form.action else page
            if address.startswith(NOT_SENT) or (address, *form.fields) in sent:
                continue
            sent.add((address, *form.fields))
            # when
            told = wrong_with(partial(client.post, address, form.fields))
            # then
            if told:
                wrong[address] = told

    assert wrong == {}
    assert len({address for address, *_ in sent}) > 20


def body_of(schema: dict[str, Any], of: dict[str, Any]) -> Any:
    """A value of this schema: the first that it names, else one of its type."""
    if "$ref" in of:
        return body_of(schema, schema["components"]["schemas"][of["$ref"].rpartition("/")[2]])
    for joined in ("allOf", "oneOf", "anyOf"):
        if joined in of:
            return body_of(schema, of[joined][0])
    if "enum" in of:
        return of["enum"][0]
    if of.get("type") == "object":
        said = of.get("properties", {})
        return {name: body_of(schema, each) for name, each in said.items()}
    if of.get("type") == "string":
        return FORMATS.get(of.get("format", ""), "tests"[: of.get("maxLength", 5)])
    return of.get("default", VALUES.get(of.get("type", ""), "tests"))


def test_no_call_of_the_management_api_that_writes_reads_a_history(
    history: History, client: Client
) -> None:
    # given
    client.force_login(history.things.person.user)
    schema = SchemaGenerator(patterns=api_urlpatterns).get_schema(request=None, public=True)
    wrong, sent = {}, 0
    for path, methods in schema["paths"].items():
        route = path.lstrip("/").replace("{", "<str:").replace("}", ">")
        address = f"/api/{history.things.address(route)}"
        for method in sorted(methods.keys() & set(WRITING)):
            content = methods[method].get("requestBody", {}).get("content", {})
            body = body_of(schema, next(iter(content.values()), {}).get("schema", {}))
            # when
            told = wrong_with(
                partial(client.generic, method.upper(), address, json.dumps(body), JSON)
            )
            # then
            sent += 1
            if told:
                wrong[f"{method} {address}"] = told

    assert wrong == {}
    assert sent > 15


def admin_page(model: type[Model], name: str, *of: object) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{name}", args=of)


def sent_from(client: Client, page: str) -> Iterator[tuple[str, Callable[[], HttpResponseBase]]]:
    """The forms of a page of the admin, as it shows them."""
    shown = client.get(page)
    if shown.status_code != 200:
        return
    for form in forms_of(shown.content.decode()):
        address = urljoin(page, form.action) if form.action else page
        if "/logout/" not in address and "_selected_action" not in form.fields:
            yield address, partial(client.post, address, form.fields)


def actions_of(
    client: Client, model: type[Model], chosen: list[str]
) -> Iterator[tuple[str, Callable[[], HttpResponseBase]]]:
    """What a list offers for its rows: asked, and confirmed where it asks back."""
    page = admin_page(model, "changelist")
    shown: Any = client.get(page)
    form = shown.context.get("action_form") if shown.context else None
    for action, _ in form.fields["action"].choices if form and chosen else ():
        if not action:
            continue
        asked = {"action": action, "_selected_action": chosen}

        def act(asked: dict[str, Any] = asked) -> HttpResponseBase:
            answer = client.post(page, asked)
            if answer.status_code == 200:
                for again in forms_of(answer.content.decode()):
                    if again.fields.get("action") == [asked["action"]]:
                        return client.post(page, asked | again.fields)
            return answer

        yield f"{page} {action}", act


# Of the scheme that Django's own form of an address assumes.
@pytest.mark.filterwarnings("ignore:The default scheme")
def test_no_action_of_the_admin_reads_a_history(history: History, client: Client) -> None:
    # given
    client.force_login(history.operator)
    wrong, sent = {}, 0
    for model in admin.site._registry:
        newest = model._default_manager.order_by("-pk").values_list("pk", flat=True)
        chosen = [str(pk) for pk in newest[:2]]
        acts = list(actions_of(client, model, chosen))
        acts += list(sent_from(client, admin_page(model, "add")))
        acts += [
            act for pk in chosen[:1] for act in sent_from(client, admin_page(model, "change", pk))
        ]
        for address, act in acts:
            # when
            told = wrong_with(act)
            # then
            sent += 1
            if told:
                wrong[address] = told

    assert wrong == {}
    assert sent > 40
