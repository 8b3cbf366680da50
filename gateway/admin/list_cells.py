"""Boxes and labels of a list's rows, laid out once for all that are alike.

Unfold renders templates of its own for the box of each row and for the label of each state: with
fifty rows a fifth of a list's time. A box differs by its row's key, a label by what it says.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from django.utils.html import format_html
from django.utils.safestring import SafeText, mark_safe
from unfold import admin as unfold_admin
from unfold.templatetags import unfold_list
from unfold.utils import display_for_label

# Of all lists together; what says something of its own in each row pushes out only others like it.
LABELS_MAX: Final = 256
NAMES_MAX: Final = 8
KEY: Final = "0key0"

_box: Callable[[str, str], str] = unfold_admin.checkbox.render
_label: Callable[[Any, str, Any], SafeText] = display_for_label


def box_of(name: str, value: Any) -> SafeText:
    """The box by which a row is chosen."""
    before, after = _around_key(name)
    return format_html("{}{}{}", before, value, after)


@lru_cache(maxsize=NAMES_MAX)
def _around_key(name: str) -> tuple[SafeText, SafeText]:
    before, after = _box(name, KEY).split(KEY)
    return mark_safe(before), mark_safe(after)  # noqa: S308 - a template of unfold's


def label_of(value: Any, empty: str, label: Any) -> SafeText:
    """A state with its colour, where it is one text; else as unfold makes it."""
    if type(value) is str and isinstance(label, dict):
        return _label_once(value, empty, label.get(value), value in label)
    return _label(value, empty, label)


@lru_cache(maxsize=LABELS_MAX)
def _label_once(value: str, empty: str, kind: str | None, is_known: bool) -> SafeText:
    return _label(value, empty, {value: kind} if is_known else {})


vars(unfold_admin.checkbox)["render"] = box_of
vars(unfold_list)["display_for_label"] = label_of
