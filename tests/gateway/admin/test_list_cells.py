"""Boxes and labels of a list's rows say what unfold's own would."""

import pytest
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from unfold import admin as unfold_admin
from unfold.templatetags import unfold_list

from gateway.admin import list_cells

STATES = {"holds": "success", "BROKEN": "danger"}


@pytest.mark.parametrize("key", ["17", "a-b_c", '"><script>'])
def test_a_row_s_box_is_the_one_that_unfold_makes(key: str) -> None:
    assert list_cells.box_of(ACTION_CHECKBOX_NAME, key) == list_cells._box(
        ACTION_CHECKBOX_NAME, key
    )


@pytest.mark.parametrize("value", ["holds", "BROKEN", "neither", "<b>", "", ("holds", "x"), None])
def test_a_label_is_the_one_that_unfold_makes(value: object) -> None:
    expected = list_cells._label(value, "-", STATES)
    assert list_cells.label_of(value, "-", STATES) == expected
    assert list_cells.label_of(value, "-", STATES) == expected


def test_lists_use_them() -> None:
    assert unfold_admin.checkbox.render is list_cells.box_of
    assert vars(unfold_list)["display_for_label"] is list_cells.label_of
