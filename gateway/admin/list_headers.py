"""A list's headers, made once for all of its rows.

Unfold's rows name their columns for narrow screens, and it makes all headers anew for each row:
with fifty rows of ten columns that is most of a list's time. They are the same for the whole list.
"""

from collections.abc import Callable, Iterable
from typing import Any

from django.contrib.admin.views.main import ChangeList
from unfold.templatetags import unfold_list

_made: Callable[[ChangeList], Iterable[dict[str, Any]]] = unfold_list.result_headers


def headers_of(page: ChangeList) -> list[dict[str, Any]]:
    """The headers of this list, kept on it: a list lives as long as its request."""
    kept: list[dict[str, Any]] | None = vars(page).get("headers_made")
    if kept is None:
        kept = list(_made(page))
        vars(page)["headers_made"] = kept
    return kept


unfold_list.result_headers = headers_of
