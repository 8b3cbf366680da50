"""The API's reference of an answer that is no serializer's: its schema, from its type."""

from collections.abc import Mapping
from typing import Any, Final, TypeAlias, cast

import msgspec

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | bool | None"
PLACE: Final = "#/{name}"


def answer(shape: Any) -> dict[int, Json]:
    """For `extend_schema`. Parts stand where they are used."""
    (schema,), parts = msgspec.json.schema_components((shape,), ref_template=PLACE)
    return {200: _plain(schema, {PLACE.format(name=name): part for name, part in parts.items()})}


def _plain(schema: Any, parts: Mapping[str, Any]) -> Json:
    """As OpenAPI 3.0 says it: what may be null is nullable, and a tuple is a list of anything."""
    if isinstance(schema, list):
        return [_plain(each, parts) for each in schema]
    if not isinstance(schema, dict):
        return cast(Json, schema)
    if "$ref" in schema:
        return _plain(parts[schema["$ref"]], parts)
    if "prefixItems" in schema:
        return {"type": "array", "items": {}}
    said = {name: _plain(value, parts) for name, value in schema.items() if name != "title"}
    if not said.get("required", True):
        del said["required"]
    options = said.pop("anyOf", None)
    if not isinstance(options, list):
        return said
    kept = [each for each in options if each != {"type": "null"}]
    if len(kept) < len(options):
        said["nullable"] = True
    alone = kept[0] if len(kept) == 1 else {"anyOf": kept}
    assert isinstance(alone, dict)
    return alone | said
