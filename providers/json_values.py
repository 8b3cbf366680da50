"""JSON that others wrote, once it is decoded."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]
else:
    JsonValue = Any  # decoders know no type that names itself
JsonObject = dict[str, JsonValue]
