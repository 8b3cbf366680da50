"""Many rows of any table, as its columns say they may be: for tests of how pages read.

Rows are copies of those that are there, or made from the columns' types where there are none. What
must be unique is; what they belong to is there. Nothing that a service would do beside it is done.
"""

from collections.abc import Collection
from datetime import timedelta
from typing import Any, Final

from django.contrib import admin
from django.db import connection, models, transaction
from django.db.models import Model

from billing.models import Tenant

# How far apart their moments are, the first the newest.
APART: Final = timedelta(minutes=7)
# Among so many, the newest, what is spread goes around.
OWNERS_MAX: Final = 50_000
# What no type tells: spans that may not overlap, moments in order.
STATED: Final[dict[tuple[str, str], str]] = {
    ("PriceVersion", "during"): "tstzrange('2001-01-01'::timestamptz + n * interval '1 hour',"
    " '2001-01-01'::timestamptz + (n + 1) * interval '1 hour')",
    # Of a team or a key that is no more.
    ("Quota", "scope_id"): "(1000000 + n)::text",
    ("ReRating", "until"): "now() + interval '1 hour'",
}
# By type, for a first row; the first that fits.
MADE: Final[tuple[tuple[type, str], ...]] = (
    (models.DateTimeField, "now()"),
    (models.DateField, "date_trunc('month', now())::date"),
    (models.UUIDField, "gen_random_uuid()"),
    (models.BinaryField, "sha256(n::text::bytea)"),
    (models.GenericIPAddressField, "'127.0.0.1'"),
    (models.CharField, "'x'"),
    (models.TextField, "'x'"),
)


def crowd_all(
    growing: Collection[type[Model]],
    *,
    many: int,
    few: int,
    spread: bool = False,
) -> None:
    """At least so many rows of each table that grows with use, and of each other that the admin
    console lists; what others belong to first."""
    first = [Tenant, *growing]
    for model in [*first, *(model for model in admin.site._registry if model not in first)]:
        wanted = many if model in growing else few
        if model._default_manager.count() < wanted:
            crowd(model, wanted, spread=spread)
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")


def crowd(model: type[Model], count: int, *, spread: bool = False) -> None:
    """Add so many rows, or as many as there are others to belong to. They belong to what those do
    that they are copies of; with `spread`, to all that there is in turn."""
    has_rows = model._default_manager.exists()
    fields = [f for f in model._meta.concrete_fields if not isinstance(f, models.AutoField)]
    table = _quoted(model._meta.db_table)
    columns = ", ".join(_quoted(field.column) for field in fields)
    values = ", ".join(
        _in_turn(model, field, has_rows)
        if spread and field.is_relation and not _is_own(model, field)
        else _value(model, field, has_rows)
        for field in fields
    )  # fmt: skip
    copied = (
        f" JOIN (SELECT *, row_number() OVER () - 1 AS place FROM {table}) s"
        f" ON s.place = n %% (SELECT count(*) FROM {table})"
    )
    owned = "".join(_owned(field) for field in fields if _is_own(model, field))
    sql = (
        f"INSERT INTO {table} ({columns}) SELECT {values} FROM generate_series(1, %s) n"
        f"{copied if has_rows else ''}{owned}"
    )
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        cursor.execute(sql, [count])
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")


def _in_turn(model: type[Model], field: Any, has_rows: bool) -> str:
    pk, table = _quoted(field.target_field.column), _quoted(field.related_model._meta.db_table)
    owners = f"SELECT {pk} FROM {table} ORDER BY 1 DESC LIMIT {OWNERS_MAX}"
    owner = f"(ARRAY({owners}))[1 + n %% (SELECT count(*) FROM ({owners}) o)]"
    known = _value(model, field, has_rows)
    return f"CASE WHEN {known} IS NULL THEN NULL ELSE {owner} END" if field.null else owner


def _quoted(name: str) -> str:
    return connection.ops.quote_name(name)


def _is_own(model: type[Model], field: Any) -> bool:
    """Whether no two rows may belong to the same."""
    if field.one_to_one:
        return field.related_model is not model
    return field.is_relation and _tells_apart(model, field)


def _owned(field: Any) -> str:
    target = field.related_model._meta
    pk = _quoted(target.pk.column)
    return (
        f" {'LEFT ' if field.null else ''}JOIN (SELECT {pk} AS pk, row_number() OVER (ORDER BY {pk}"
        f" DESC) AS place FROM {_quoted(target.db_table)}) own_{field.column}"
        f" ON own_{field.column}.place = n"
    )


def _tells_apart(model: type[Model], field: Any) -> bool:
    """Whether it is the field by which this table's rows differ where several together must."""
    for constraint in model._meta.constraints:
        if isinstance(constraint, models.UniqueConstraint) and constraint.fields:
            own = [model._meta.get_field(name) for name in constraint.fields]
            plain = [each for each in own if not each.is_relation and not each.choices]
            texts = [each for each in plain if isinstance(each, models.CharField)]
            if [*texts, *reversed(plain), *own][0] is field:
                return True
    return False


def _value(model: type[Model], field: Any, has_rows: bool) -> str:
    stated = STATED.get((model.__name__, field.name))
    if stated is not None:
        return stated
    known = f"s.{_quoted(field.column)}" if has_rows else _made(field)
    if _is_own(model, field):
        own = f"own_{field.column}.pk"
        return f"CASE WHEN {known} IS NULL THEN NULL ELSE {own} END" if field.null else own
    if field.one_to_one:
        return "NULL"
    if isinstance(field, models.DateTimeField):
        return f"{known}::timestamptz - n * interval '{APART.total_seconds()} seconds'"
    return _varied(field, known) if field.unique or _tells_apart(model, field) else known


def _varied(field: Any, known: str) -> str:
    if isinstance(field, models.UUIDField | models.BinaryField):
        return _made(field)
    if isinstance(field, models.DateField):
        return f"({known} - n * interval '1 month')::date"
    if isinstance(field, models.CharField):
        return f"left({known}, {(field.max_length or 40) - 7}) || 'x' || n"
    return f"{known} + n"


def _made(field: Any) -> str:
    if field.null:
        return "NULL"
    if field.is_relation:
        target = field.related_model._meta
        return f"(SELECT min({_quoted(target.pk.column)}) FROM {_quoted(target.db_table)})"
    if field.choices:
        return f"'{next(iter(field.flatchoices))[0]}'"
    if isinstance(field, models.JSONField):
        return "'[]'" if field.default is list else "'{}'"
    if isinstance(field, models.BooleanField):
        return str(field.default is True)
    typed = (made for type_, made in MADE if isinstance(field, type_))
    return next(typed, "1")
