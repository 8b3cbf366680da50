"""The API's OpenAPI description, and its reference as a page, read from it without any script.

The description says what the code does, so it is made once in a process: it takes some 100 ms.
"""

import json
from dataclasses import dataclass
from functools import cache
from typing import Final

import msgspec
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from drf_spectacular.generators import SchemaGenerator

from gateway.console.page_frame import render_page

OPENAPI_JSON: Final = "application/vnd.oai.openapi+json"
JSON: Final = "application/json"
METHODS = ("get", "post", "put", "patch", "delete")


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be asked for."""

    method: str
    path: str
    summary: str
    parameters: list[str]
    fields: list[str]


class Parameter(msgspec.Struct, frozen=True):
    name: str
    place: str = msgspec.field(name="in")


class Schema(msgspec.Struct, frozen=True):
    reference: str = msgspec.field(name="$ref", default="")
    required: list[str] = []
    properties: dict[str, object] = {}


class Content(msgspec.Struct, frozen=True):
    schema: Schema = Schema()


class RequestBody(msgspec.Struct, frozen=True):
    content: dict[str, Content] = {}


class Call(msgspec.Struct, frozen=True):
    description: str = ""
    parameters: list[Parameter] = []
    body: RequestBody = msgspec.field(name="requestBody", default=RequestBody())


class Components(msgspec.Struct, frozen=True):
    schemas: dict[str, Schema]


class Described(msgspec.Struct, frozen=True):
    """What the page reads of an OpenAPI description."""

    paths: dict[str, dict[str, Call]]
    components: Components


@require_safe
def description(request: HttpRequest) -> HttpResponse:
    return HttpResponse(_description_json(), content_type=OPENAPI_JSON)


@require_safe
def reference(request: HttpRequest) -> HttpResponse:
    context = {"operations": _operations()}
    return render_page(request, "api/reference.html", context, nav="api")


@cache
def _description_json() -> bytes:
    generator = SchemaGenerator()  # type: ignore[no-untyped-call]
    described = generator.get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return json.dumps(described, indent=4).encode()


@cache
def _operations() -> list[Operation]:
    return operations(_description_json())


def operations(description_json: bytes) -> list[Operation]:
    described = msgspec.json.decode(description_json, type=Described)
    return [
        Operation(
            method=method.upper(),
            path=path,
            summary=call.description,
            parameters=[each.name for each in call.parameters if each.place == "query"],
            fields=_fields(call, described.components),
        )
        for path, calls in described.paths.items()
        for method, call in calls.items()
        if method in METHODS
    ]


def _fields(call: Call, components: Components) -> list[str]:
    """The names in the JSON body; required ones are marked with an asterisk."""
    content = call.body.content.get(JSON, Content())
    body = components.schemas.get(content.schema.reference.rpartition("/")[2], Schema())
    return [f"{name}*" if name in body.required else name for name in body.properties]
