"""Table heads that sort by a link, so that the order stands in the URL and needs no script."""

from typing import TypedDict

from django import template
from django.http import QueryDict
from django.template import Context
from django.utils import timezone

from gateway.console.board import sparkline
from providers.boards.home import CHANGE_OVER

register = template.Library()


class SortHead(TypedDict):
    column: str
    label: str
    unit: str
    kind: str
    url: str
    is_sorted: bool
    descending: bool


@register.inclusion_tag("parts/sort_head.html", takes_context=True)
def sort_head(
    context: Context,
    column: str,
    label: str,
    unit: str = "",
    *,
    kind: str = "num",
    most_first: bool = False,
) -> SortHead:
    """`column` empty is the page's own order, the rank. A second click turns the order round."""
    query: QueryDict = context["request"].GET.copy()
    is_sorted = query.get("sort", "") == column
    descending = query.get("dir") == "desc"
    next_descending = not descending if is_sorted and column else most_first
    query["sort"] = column
    query["dir"] = "desc" if next_descending else "asc"
    query.pop("before", None)
    return {
        "column": column,
        "label": label,
        "unit": unit,
        "kind": kind,
        "url": f"?{query.urlencode()}",
        "is_sorted": is_sorted,
        "descending": descending,
    }


@register.filter
def spark(steps: list[tuple[str, float]]) -> str:
    now = timezone.now()
    return sparkline.path(steps, since=now - CHANGE_OVER, now=now)


@register.filter
def lowest(steps: list[tuple[str, int]]) -> int:
    return min(value for _, value in steps)


@register.filter
def highest(steps: list[tuple[str, int]]) -> int:
    return max(value for _, value in steps)
