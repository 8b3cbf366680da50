"""Reading a request body: what every surface refuses alike, and the fields routing looks at.

Bodies are decoded twice, both in C: into a typed struct that validates, and into top-level
fields left as bytes that a wire can splice without touching a long prompt.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, TypeVar

import msgspec

from billing.money import PICO_PER_TOKEN_PER_USD_PER_MILLION, PICO_PER_USD, pico_from_usd
from gateway.errors import InvalidRequest
from providers.chat import RoutingFields
from providers.outbound import egress
from providers.outbound.egress import EgressRefused
from providers.pictures import Picture
from providers.wires import body_fields as field_rules
from providers.wires import media_rules, service_tiers

T = TypeVar("T")

DEPTH_MAX = 64
SESSION_BYTES_MAX = 128
CEILING_PICO_MAX = 1_000_000 * PICO_PER_USD
TAG_MAX = 64
PER_MILLION_USD_MAX = Decimal(1_000_000)

# A name is shown, kept and searched for: PostgreSQL takes no NUL, and nobody reads a line break.
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
Names = Annotated[list[Name], msgspec.Meta(max_length=50)]
TokenLimit = Annotated[int, msgspec.Meta(ge=1, le=10_000_000)]
Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]

_PATH = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`$")
_MISSING = re.compile(r"^Object missing required field `([^`]+)`")
DATA = "data:"
_SCHEME = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]*:")
_USD = re.compile(rb"[0-9]{1,12}(\.[0-9]{1,18})?([eE][+-]?[0-9]{1,2})?")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_SQUARE = bytes.maketrans(b"{}", b"[]")
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_Switch = bool | int | float | Annotated[str, msgspec.Meta(max_length=TAG_MAX)] | None
_switches = msgspec.json.Decoder(dict[str, _Switch] | None)


@dataclass(slots=True)
class Contents:
    """What a prompt holds, noted while it is checked. `media_bytes` of the body are pictures and
    sounds, and no text; `unbounded` names the first thing whose tokens nothing here bounds."""

    needs: set[str] = field(default_factory=set)
    pictures: list[Picture] = field(default_factory=list)
    sound_tokens: int = 0
    media_bytes: int = 0
    preamble_tokens: int = 0
    unbounded: str = ""

    @property
    def all_text(self) -> bool:
        return not (self.pictures or self.sound_tokens or self.unbounded)

    def add_picture(self, picture: Picture, written: str) -> None:
        self.needs.add("vision")
        self.pictures.append(picture)
        self.media_bytes += len(written)

    def add_sound(self, written: str) -> None:
        """Base64 has four letters for three bytes."""
        self.needs.add("audio")
        if not written:
            self.add_unbounded("a sound without data")
            return
        self.sound_tokens += media_rules.sound_bound(len(written) * 3 // 4)
        self.media_bytes += len(written)

    def add_address(self, path: str, given: str | None) -> None:
        """Something that is in the body itself or, then noted, at an address that whoever is sent
        it will fetch. InvalidRequest where that would be a file or a network of its own."""
        if given is None or given[: len(DATA)].lower() == DATA:
            return
        try:
            egress.check_fetched(given)
        except EgressRefused as refused:
            raise InvalidRequest(
                f"`{path}`: {refused}.", param=path, code="address_refused"
            ) from None
        self.needs.add("addresses")

    def add_data(self, path: str, given: str | None) -> None:
        """Something that should be base64; some servers fetch it where it is an address."""
        if given is not None and _SCHEME.match(given):
            self.add_address(path, given)

    def add_unbounded(self, name: str) -> None:
        self.unbounded = self.unbounded or name


# Of routing, as the usual request does.
_ASKS_NOTHING = RoutingFields()


class Sort(msgspec.Struct):
    by: str | None = None


class MaxPrice(msgspec.Struct):
    """US dollars per million tokens, as numbers or strings."""

    prompt: Decimal | None = None
    completion: Decimal | None = None


class Provider(msgspec.Struct):
    """OpenRouter's `provider` object, as far as it is acted on."""

    order: Names | None = None
    only: Names | None = None
    ignore: Names | None = None
    allow_fallbacks: bool | None = None
    require_parameters: bool | None = None
    sort: str | Sort | None = None
    max_price: MaxPrice | None = None


def decode(body: bytes, decoder: "msgspec.json.Decoder[T]") -> tuple[T, Mapping[str, msgspec.Raw]]:
    """The typed body and its top-level fields, or InvalidRequest naming the field."""
    try:
        if not body.isascii():
            body.decode()  # msgspec does not look into strings that it skips
        typed = decoder.decode(body)
        fields = _fields.decode(body)
    except msgspec.ValidationError as wrong:
        raise _invalid(str(wrong)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
        raise InvalidRequest(f"The body is not valid JSON: {wrong}", code="invalid_json") from None
    except RecursionError:
        raise _too_deep() from None
    if not depth_within(body, DEPTH_MAX):
        raise _too_deep()
    _check_names(fields)
    return typed, fields


def _check_names(fields: Mapping[str, msgspec.Raw]) -> None:
    """InvalidRequest for other spellings of names that are acted on, and for what no seller is
    asked for on anybody's behalf. Anything else that we do not know is left out, and told."""
    for name in field_rules.odd(fields):
        value = bytes(fields[name])
        shown = "".join(c for c in name if c.isprintable())[:TAG_MAX]
        if known := field_rules.meant(name):
            raise InvalidRequest(
                f"`{shown}` is not the name of a field; `{known}` is.",
                param=shown,
                code="unknown_field",
            )
        if name in field_rules.REFUSED and value not in field_rules.NOTHING:
            raise InvalidRequest(
                f"`{shown}` cannot be asked for here: it would change what runs on a seller's "
                "machine, or what it costs, beyond what is priced.",
                param=shown,
                code="field_not_allowed",
            )
    if "chat_template_kwargs" in fields:
        _check_template(fields["chat_template_kwargs"])


def _check_template(raw: msgspec.Raw) -> None:
    """A template's switches are written into its text: which, and how long, is bounded."""
    try:
        switches = _switches.decode(raw) or {}
    except msgspec.ValidationError as wrong:
        raise _invalid(str(wrong).replace("$", "$.chat_template_kwargs", 1)) from None
    for name in switches.keys() - field_rules.TEMPLATE_SWITCHES:
        param = f"chat_template_kwargs.{''.join(c for c in name if c.isprintable())[:TAG_MAX]}"
        raise InvalidRequest(
            f"`{param}` cannot be asked for here; these can: "
            f"{', '.join(sorted(field_rules.TEMPLATE_SWITCHES))}.",
            param=param,
            code="field_not_allowed",
        )


def _invalid(text: str) -> InvalidRequest:
    path = _PATH.search(text)
    param = path.group(1) if path else ""
    words = _PATH.sub("", text)
    missing = _MISSING.match(text)
    if missing:
        param = f"{param}.{missing.group(1)}" if param else missing.group(1)
        return InvalidRequest(f"`{param}` is required.", param=param, code="missing_field")
    where = f"`{param}`: " if param else "The body: "
    return InvalidRequest(f"{where}{words}.", param=param or None, code="invalid_value")


def _too_deep() -> InvalidRequest:
    return InvalidRequest(
        f"The body is nested more than {DEPTH_MAX} levels deep.", code="too_deeply_nested"
    )


def depth_within(body: bytes, depth_max: int) -> bool:
    """Whether valid JSON nests at most so deep: innermost brackets are peeled, level by level.

    Every step runs in C, because prompts are long: without escapes, what stands between
    quotes is every second piece.
    """
    if body.count(b"[") + body.count(b"{") <= depth_max:
        return True
    pieces = body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
    brackets = b"".join(pieces[::2]).translate(_SQUARE, _NOT_BRACKETS)
    for _ in range(depth_max):
        if not brackets:
            return True
        brackets = brackets.replace(b"[]", b"")
    return not brackets


def routing(
    provider: Provider | None, models: list[str] | None, *, sort: str = ""
) -> RoutingFields:
    """What the caller asks of routing; `sort` is what a model suffix asked for."""
    if provider is None and not models and not sort:
        return _ASKS_NOTHING
    chosen = provider or Provider()
    by = chosen.sort.by if isinstance(chosen.sort, Sort) else chosen.sort
    price = chosen.max_price or MaxPrice()
    if by is not None and by not in ("price", "throughput", "latency"):
        raise InvalidRequest(
            "`provider.sort`: expected price, throughput or latency.",
            param="provider.sort",
            code="invalid_value",
        )
    return RoutingFields(
        order=tuple(chosen.order or ()),
        only=tuple(chosen.only or ()),
        ignore=tuple(chosen.ignore or ()),
        allow_fallbacks=chosen.allow_fallbacks is not False,
        sort=sort or by or "",
        max_input_pico=_ceiling("prompt", price.prompt),
        max_output_pico=_ceiling("completion", price.completion),
        models=tuple(models or ()),
        require_parameters=bool(chosen.require_parameters),
    )


def _ceiling(name: str, usd_per_million: Decimal | None) -> int | None:
    """A ceiling in pico-dollars per token, rounded down."""
    if usd_per_million is None:
        return None
    if not usd_per_million.is_finite() or not 0 <= usd_per_million <= PER_MILLION_USD_MAX:
        param = f"provider.max_price.{name}"
        raise InvalidRequest(
            f"`{param}`: expected US dollars per million tokens.",
            param=param,
            code="invalid_value",
        )
    return int(usd_per_million * PICO_PER_TOKEN_PER_USD_PER_MILLION)


def model_and_sort(model: str | None, models: list[str] | None) -> tuple[str, str]:
    """The model without a routing suffix, and the sort that the suffix stands for."""
    name = model or (models[0] if models else "")
    if not name:
        raise InvalidRequest("`model` is required.", param="model", code="missing_field")
    if name.endswith(":floor"):
        return name.removesuffix(":floor"), "price"
    if name.endswith(":nitro"):
        return name.removesuffix(":nitro"), "throughput"
    return name, ""


def tier(service_tier: str | None) -> int:
    if service_tier is None:
        return 0
    number = service_tiers.ASKED.get(service_tier)
    if number is None:
        raise InvalidRequest(
            f"`service_tier`: expected one of {', '.join(service_tiers.ASKED)}.",
            param="service_tier",
            code="invalid_value",
        )
    return number


def costs_extra(fields: Mapping[str, msgspec.Raw], plain: Mapping[str, frozenset[bytes]]) -> bool:
    """Whether a field has another value than those at which the vendor charges what it publishes.
    `plain` names the fields, with these values as JSON."""
    return any(
        bytes(fields[name]) not in values for name, values in plain.items() if name in fields
    )


def flag(headers: Mapping[bytes, bytes], name: bytes) -> bool:
    return headers.get(name, b"").strip().lower() in (b"1", b"true", b"yes")


def text(headers: Mapping[bytes, bytes], name: bytes, *, length_max: int = TAG_MAX) -> str:
    """A header as printable text of bounded length."""
    value = headers.get(name)
    if value is None:
        return ""
    return "".join(c for c in value.decode("latin-1") if c.isprintable())[:length_max]


def max_cost(fields: Mapping[str, msgspec.Raw], headers: Mapping[bytes, bytes]) -> int | None:
    """What the caller will pay at most for this request, in pico-dollars: the lower of the body's
    `max_cost` and the header's. InvalidRequest where one is not an exact amount."""
    of_header = _ceiling_in(headers, b"x-max-cost", "X-Max-Cost")
    raw = bytes(fields.get("max_cost", b"null"))
    if raw == b"null":
        return of_header
    of_body = usd(raw.removeprefix(b'"').removesuffix(b'"'), param="max_cost")
    return of_body if of_header is None else min(of_body, of_header)


def session_max_cost(headers: Mapping[bytes, bytes]) -> int | None:
    """What the caller lets its session cost in all, in pico-dollars."""
    return _ceiling_in(headers, b"x-session-max-cost", "X-Session-Max-Cost")


def _ceiling_in(headers: Mapping[bytes, bytes], name: bytes, param: str) -> int | None:
    stated = headers.get(name)
    return None if stated is None else usd(stated.strip(), param=param)


def usd(text: bytes, *, param: str) -> int:
    """Plain decimal dollars, as exact pico-dollars."""
    try:
        if not _USD.fullmatch(text):
            raise ValueError("not plain decimal digits")
        pico = pico_from_usd(text.decode())
    except ValueError:
        pico = -1
    if not 0 <= pico <= CEILING_PICO_MAX:
        raise InvalidRequest(
            f"`{param}`: expected US dollars as a plain decimal number from 0 to 1000000 with at "
            "most 12 places, such as 0.05.",
            param=param,
            code="invalid_value",
        )
    return pico


def session(stated: str | None, headers: Mapping[bytes, bytes]) -> str:
    """The id of the caller's session, from the body's `session_id` or else X-Session-Id."""
    header = headers.get(b"x-session-id", b"").strip()
    session_id = stated or header.decode("utf-8", "surrogateescape")
    size = len(session_id.encode("utf-8", "surrogatepass"))
    if size > SESSION_BYTES_MAX or any(c < " " or c == "\x7f" for c in session_id):
        raise InvalidRequest(
            f"The session id must have at most {SESSION_BYTES_MAX} bytes and no control "
            "characters.",
            param="session_id" if stated else "X-Session-Id",
            code="invalid_session_id",
        )
    return session_id


def bytes_outside(fields: Mapping[str, msgspec.Raw], not_prompt: frozenset[str]) -> int:
    """JSON bytes of every field that is not known to stay out of the prompt."""
    return sum(len(memoryview(raw)) for name, raw in fields.items() if name not in not_prompt)
