"""What the admin pages of all apps share: reading without writing, adding through a service."""

from collections.abc import Sequence
from datetime import UTC, datetime
from string import hexdigits
from typing import Any, ClassVar, Final
from uuid import UUID

from django.contrib import messages
from django.contrib.admin import ModelAdmin as DjangoAdmin
from django.contrib.admin import SimpleListFilter
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.paginator import Page, Paginator
from django.db import connection
from django.db.models import Max, Min, Model, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.functional import cached_property
from django.utils.html import format_html
from unfold.admin import ModelAdmin
from unfold.views import ChangeList

from billing.admin import units as admin_units

ROWS_SHOWN_MAX: Final = 10_000
# A row of a list takes a millisecond or two to lay out.
LIST_PER_PAGE: Final = 50
VALUES_MAX: Final = 200
UUID_DIGITS: Final = 32
# All such numbers fit into a bigint.
DIGITS_MAX: Final = 18
MONTHS_MAX: Final = 60


def two_lines(first: str, second: str) -> str:
    """A cell with its figure and, smaller, what belongs to it."""
    return format_html("{}<br><small>{}</small>", first, second)


def own_page(
    site: "DjangoAdmin[Any]", request: HttpRequest, template: str, *, title: str, **context: Any
) -> TemplateResponse:
    """A page beside the list and the form, inside the console's frame. One that confirms an action
    names its rows under `checkbox`, as the list did."""
    frame = site.admin_site.each_context(request) | {
        "title": title,
        "checkbox": ACTION_CHECKBOX_NAME,
        "opts": site.opts,
    }
    return TemplateResponse(request, template, frame | context)


class NewestRows(Paginator):  # type: ignore[type-arg]
    """The newest rows of a table that grows with use. Further back a filter leads, not a page:
    to count or to skip a history is to read it."""

    template_name = "admin/newest_rows.html"

    @cached_property
    def count(self) -> int:
        return min(self.found, ROWS_SHOWN_MAX)

    @cached_property
    def found(self) -> int:
        """How many there are; one more than are shown stands for all that there may be."""
        rows = self.object_list
        assert isinstance(rows, QuerySet)
        return rows[: ROWS_SHOWN_MAX + 1].count()

    @property
    def has_more(self) -> bool:
        return self.found > ROWS_SHOWN_MAX

    def page(self, number: int | str) -> Page[Any]:
        """Its rows are found by their keys: what is skipped is not read with all that it joins."""
        found = super().page(number)
        rows = self.object_list
        assert isinstance(rows, QuerySet)
        assert isinstance(found.object_list, QuerySet)
        keys = list(found.object_list.values_list("pk", flat=True))
        found.object_list = rows.filter(pk__in=keys)
        return found


class NewestFirst(ChangeList):
    """In no other order, whatever an address asks for: no index has every column."""

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:
        return list(self.model_admin.ordering or ())

    def get_ordering_field_columns(self) -> dict[int, Any]:
        return {}


class Occurring(SimpleListFilter):
    """A filter by the values that a column has, found by its index, one step for each."""

    column: str

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(str(value), str(value)) for value in self._values(model_admin.model)]

    def _values(self, model: type[Model]) -> list[Any]:
        column, table = connection.ops.quote_name(self.column), model._meta.db_table
        # PostgreSQL has no skip scan for DISTINCT.
        sql = f"""
            WITH RECURSIVE step AS (
                (SELECT {column} AS value FROM {table} ORDER BY 1 LIMIT 1)
                UNION ALL
                SELECT (SELECT {column} FROM {table} WHERE {column} > step.value
                    ORDER BY 1 LIMIT 1) FROM step WHERE step.value IS NOT NULL
            ) SELECT value FROM step WHERE value IS NOT NULL LIMIT {VALUES_MAX}
        """
        with connection.cursor() as cursor:
            cursor.execute(sql)
            return [value for (value,) in cursor.fetchall()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        wanted = self.value()
        return queryset if wanted is None else queryset.filter(**{self.column: wanted})


def occurring(name: str) -> type[Occurring]:
    """The filter by one column, which needs an index that begins with it."""
    title = name.replace("_", " ")
    members = {"title": title, "parameter_name": name, "column": name}
    return type(f"{name.capitalize()}Occurring", (Occurring,), members)


class Months(SimpleListFilter):
    """A filter by the months of a column, from its first to its last by the ends of its index."""

    column: str

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        ends = model_admin.model.objects.aggregate(first=Min(self.column), last=Max(self.column))
        if ends["first"] is None:
            return []
        first, last = (12 * end.year + end.month - 1 for end in (ends["first"], ends["last"]))
        found = range(last, max(first - 1, last - MONTHS_MAX), -1)
        return [(f"{n // 12}-{n % 12 + 1:02}",) * 2 for n in found]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        wanted = self.value()
        if wanted is None or wanted not in dict(self.lookup_choices):
            return queryset
        year, month = map(int, wanted.split("-"))
        first = datetime(year, month, 1, tzinfo=UTC)
        after = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
        return queryset.filter(**{f"{self.column}__gte": first, f"{self.column}__lt": after})


def months(name: str) -> type[Months]:
    """The filter by one column's months (UTC), which needs an index that begins with it."""
    members = {"title": "month", "parameter_name": "month", "column": name}
    return type(f"{name.capitalize()}Months", (Months,), members)


class AsksOnce(ModelAdmin):
    """What cells say that no row has is asked for once, for all rows of the page."""

    list_per_page = LIST_PER_PAGE
    # What a list without rows says: why, or what makes the first.
    nothing_yet = ""

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        page = super().get_changelist_instance(request)
        page.result_list = list(page.result_list)
        self.ask_once(page.result_list)
        return page

    def ask_once(self, rows: Sequence[Any]) -> None:
        """Hang onto each row what its cells will say."""


class InUnits(AsksOnce):
    """Where a row is only shown, its amounts are shown as people read them."""

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        stated = super().get_fields(request, obj)
        if obj is None or self.fields or self.has_change_permission(request, obj):
            return stated
        amounts = {f.name: f for f in self.opts.fields if admin_units.is_amount(f.name)}
        hidden = set(self.get_exclude(request, obj) or ())
        # What a form asks for is no column: the row has it as an amount.
        columns = {f.name for f in self.opts.fields}
        asked = set(self.form.declared_fields) - columns
        plain = [n for n in stated if n not in amounts and n not in asked]
        return plain + [admin_units.shown(f) for n, f in amounts.items() if n not in hidden]


class ReadOnlyAdmin(InUnits):
    """Shows rows that only services write."""

    show_full_result_count = False
    paginator = NewestRows

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class Growing(ModelAdmin):
    """A list of a table that grows with use: newest first and in no other order. What is filtered
    by has an index; what ids do not find is searched for among the rows that the list reaches."""

    list_per_page = LIST_PER_PAGE
    show_full_result_count = False
    paginator = NewestRows
    # By what the indexes of its filters end with.
    ordering: ClassVar[tuple[str, ...]] = ("-pk",)
    sortable_by = ()
    # A column of UUIDs by which rows are found, also by their beginning.
    id_column: str = ""
    # Columns with an index that name a row whole: found however old it is.
    named_by: tuple[str, ...] = ()

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> Any:
        return NewestFirst

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        if not search_term:
            return queryset, False
        if not self.id_column:
            named = self._named(queryset, search_term.strip())
            if named is not None:
                return named, False
            return super().get_search_results(request, _reached(queryset), search_term)
        digits = search_term.strip().replace("-", "").lower()
        if not digits or len(digits) > UUID_DIGITS or not set(digits) <= set(hexdigits):
            return queryset.none(), False
        first, last = (UUID(hex=digits.ljust(UUID_DIGITS, fill)) for fill in "0f")
        return queryset.filter(**{f"{self.id_column}__range": (first, last)}), False

    def _named(self, rows: QuerySet[Any], term: str) -> QuerySet[Any] | None:
        for column in self.named_by:
            if column == "pk" and (not term.isdecimal() or len(term) > DIGITS_MAX):
                continue
            found = rows.filter(**{column: term})
            if found.exists():
                return found
        return None


def _reached(rows: QuerySet[Any]) -> QuerySet[Any]:
    """The newest of them, as many as a list reaches back."""
    keys = rows.order_by("-pk").values_list("pk", flat=True)
    last = keys[ROWS_SHOWN_MAX - 1 : ROWS_SHOWN_MAX].first()
    return rows if last is None else rows.filter(pk__gte=last)


class HistoryAdmin(Growing, ReadOnlyAdmin):  # type: ignore[misc]
    """Shows a table that grows with use and that only services write."""


class ServiceAdmin(InUnits):
    """Writes through a service, whose refusals are told to the person and change nothing."""

    refusals: tuple[type[Exception], ...] = ()
    shown_once: str = ""

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except self.refusals as refusal:
            self.message_user(request, f"Nothing was changed: {refusal}", messages.ERROR)
            return HttpResponseRedirect(request.get_full_path())

    def take_over(self, obj: Model, made: Model) -> None:
        """The admin goes on with the row that the service made."""
        obj.pk = made.pk
        obj._state.adding = False
        obj.refresh_from_db()

    def show_once(
        self, request: HttpRequest, *, title: str, secret: str, hint: str
    ) -> HttpResponse:
        """A page with a secret that is nowhere kept."""
        template = "admin/shown_once.html"
        response = own_page(self, request, template, title=title, secret=secret, hint=hint)
        response["Cache-Control"] = "no-store"
        return response
