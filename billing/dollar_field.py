"""A form field for sums of money: plain ASCII digits, no exponent, no digit beyond its places.

Django's own takes every digit that Unicode knows, and 1e400.
"""

import re
from typing import Any, Final

from django import forms
from django.core.exceptions import ValidationError
from unfold.widgets import UnfoldAdminDecimalFieldWidget

PLAIN: Final = re.compile(r"[+-]?[0-9]{1,15}(\.[0-9]{0,12})?")


class DollarField(forms.DecimalField):
    """`places` digits after the point; not below `minimum`, if one is given."""

    def __init__(self, *, places: int = 12, minimum: int | None = 0, **options: Any) -> None:
        options.setdefault("widget", UnfoldAdminDecimalFieldWidget)
        super().__init__(
            min_value=minimum, max_digits=15 + places, decimal_places=places, **options
        )

    def to_python(self, value: Any) -> Any:
        if value not in self.empty_values and not PLAIN.fullmatch(str(value).strip()):
            raise ValidationError("Enter a sum like 12.50, in plain digits.", code="invalid")
        return super().to_python(value)
