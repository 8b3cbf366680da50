"""The API's OpenAPI description, and its reference as a page, read from it without any script.

The description says what the code does, so it is made once in a process: it takes some 100 ms.
"""

import json
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from drf_spectacular.generators import SchemaGenerator

from gateway.console.page_frame import render_page

OPENAPI_JSON: Final = "application/vnd.oai.openapi+json"
METHODS = ("get", "post", "put", "patch", "delete")


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be asked for."""

    method: str
    path: str
    summary: str
    parameters: list[str]
    fields: list[str]


@require_safe
def description(request: HttpRequest) -> HttpResponse:
    return HttpResponse(_description_json(), content_type=OPENAPI_JSON)


@require_safe
def reference(request: HttpRequest) -> HttpResponse:
    context = {"operations": _operations()}
    return render_page(request, "api/reference.html", context, nav="api")


@cache
def _description() -> dict[str, Any]:
    generator = SchemaGenerator()  # type: ignore[no-untyped-call]
    described: dict[str, Any] = generator.get_schema(request=None, public=True)  # type: ignore[no-untyped-call]
    return described


@cache
def _description_json() -> bytes:
    return json.dumps(_description(), indent=4).encode()


@cache
def _operations() -> list[Operation]:
    return operations(_description())


def operations(schema: dict[str, Any]) -> list[Operation]:
    return [
        Operation(
            method=method.upper(),
            path=path,
            summary=described.get("description", ""),
            parameters=[
                parameter["name"]
                for parameter in described.get("parameters", [])
                if parameter["in"] == "query"
            ],
            fields=_fields(schema, described),
        )
        for path, methods in schema["paths"].items()
        for method, described in methods.items()
        if method in METHODS
    ]


def _fields(schema: dict[str, Any], described: dict[str, Any]) -> list[str]:
    """The names in the JSON body; required ones are marked with an asterisk."""
    content = described.get("requestBody", {}).get("content", {})
    reference = content.get("application/json", {}).get("schema", {}).get("$ref", "")
    body = schema["components"]["schemas"].get(reference.rpartition("/")[2], {})
    required = body.get("required", [])
    return [f"{name}*" if name in required else name for name in body.get("properties", {})]
