"""CSV downloads: what a seller calls itself runs in nobody's spreadsheet."""

import csv
import io

import pytest

from gateway.console.spreadsheet import csv_response


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ("acme/small", "acme/small"),
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("@sum", "'@sum"),
        ("+1+1", "'+1+1"),
        ("-2+3", "'-2+3"),
        ("\t=1", "'\t=1"),
        ("-0.25", "-0.25"),
        (-3, "-3"),
        ("", ""),
        (None, ""),
    ],
)
def test_a_text_that_looks_like_a_formula_is_quoted(value: object, cell: str) -> None:
    answer = csv_response('x/y"\n.csv', head=("a",), rows=[(value, "end")])

    rows = list(csv.reader(io.StringIO(answer.content.decode(), newline="")))
    assert rows == [["a"], [cell, "end"]]
    assert answer["Content-Disposition"] == 'attachment; filename="x-y--.csv"'
