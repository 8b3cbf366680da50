"""The `format`s of a JSON schema: those that a grammar keeps, and how long their texts may get.

JSON Schema lets anybody invent a format; one that is not known here says something to people and
nothing to a grammar. Some known ones have no end (a fraction of a second, a number of years): a
small model that likes digits would fill its answer with them.
"""

from collections.abc import Mapping
from typing import Final

from workers.json_values import Json, is_number

# Characters of the longest text that makes sense; 0 where the format itself has an end.
LENGTH_MAX: Final[Mapping[str, int]] = {
    "date-time": len("2026-11-30T10:20:30.123456789+01:00"),
    "time": len("10:20:30.123456789+01:00"),
    "duration": len("P1000Y11M30DT23H59M59.123456789S"),
    "date": 0,
    "email": 254,
    "hostname": 253,
    "ipv4": 0,
    "ipv6": 0,
    "uri": 2_048,
    "uuid": 0,
}
# Where a schema holds schemas; what stands anywhere else (`const`, `enum`, …) is data.
_ONE: Final = frozenset(
    {
        "additionalItems",
        "additionalProperties",
        "contains",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
_LISTED: Final = frozenset({"allOf", "anyOf", "items", "oneOf", "prefixItems"})
_NAMED: Final = frozenset(
    {"$defs", "definitions", "dependentSchemas", "patternProperties", "properties"}
)


def settled(schema: Json) -> Json:
    """The schema without formats that no grammar knows, and with an end for those that have none.

    Nothing is changed in place. RecursionError where it is nested too deeply to be walked.
    """
    return settled_object(schema) if isinstance(schema, dict) else schema


def settled_object(schema: dict[str, Json]) -> dict[str, Json]:
    made = {key: _value(key, value) for key, value in schema.items()}
    if "format" not in made:
        return made
    name = made["format"]
    if not isinstance(name, str) or name not in LENGTH_MAX:
        del made["format"]
    elif LENGTH_MAX[name]:
        made["maxLength"] = _lower(made.get("maxLength"), LENGTH_MAX[name])
    return made


def _value(key: str, value: Json) -> Json:
    if key in _NAMED and isinstance(value, dict):
        return {name: settled(one) for name, one in value.items()}
    if key in _LISTED and isinstance(value, list):
        return [settled(one) for one in value]
    return settled(value) if key in _ONE else value


def _lower(stated: Json, bound: int) -> Json:
    """A stated limit that is none is left to the compiler, which says what is wrong with it."""
    if stated is None or (is_number(stated) and stated > bound):
        return bound
    return stated
