"""Admin pages on which staff edit rows themselves: what they changed goes to the audit log.

Where a service makes the change, the service writes its own entry, and its page is none of these.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, cast

from django.db import transaction
from django.db.models import Model, QuerySet
from django.forms import BaseForm
from django.http import HttpRequest
from django.utils import timezone
from unfold.admin import ModelAdmin

from billing import audit
from billing.admin.base_admin import LIST_PER_PAGE
from billing.models import Tenant

# As the log can keep a value.
Kept: TypeAlias = bool | int | str | list[str] | None
# Told as changed; never what it was or is.
HIDDEN = ("password", "secret")


class AuditedAdmin(ModelAdmin):
    """The entry is part of the transaction in which the admin saves or deletes."""

    list_per_page = LIST_PER_PAGE

    def construct_change_message(
        self, request: HttpRequest, form: Any, formsets: Any, add: bool = False
    ) -> Any:
        """The one place that Django passes after each save with the form as it was sent."""
        obj = form.instance if hasattr(form, "instance") else form.user
        _record(request, obj, "set", before=None if add else _initial(form), after=_stated(form))
        return super().construct_change_message(request, form, formsets, add)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        with transaction.atomic():
            _record(request, obj, "remove", before={"id": obj.pk}, after=None)
            super().delete_model(request, obj)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        with transaction.atomic():
            for obj in queryset:
                _record(request, obj, "remove", before={"id": obj.pk}, after=None)
            super().delete_queryset(request, queryset)


def _record(
    request: HttpRequest,
    obj: Model,
    verb: str,
    *,
    before: Mapping[str, Kept] | None,
    after: Mapping[str, Kept] | None,
) -> None:
    tenant = obj if isinstance(obj, Tenant) else getattr(obj, "tenant", None)
    audit.record(
        actor=request.user.get_username(),
        action=f"{obj._meta.model_name}.{verb}",
        subject=str(obj),
        tenant=tenant if isinstance(tenant, Tenant) else None,
        before=before,
        after=after,
        now=timezone.now(),
    )


def _is_hidden(name: str) -> bool:
    return any(word in name for word in HIDDEN)


def _initial(form: BaseForm) -> dict[str, Kept]:
    return {
        name: None if _is_hidden(name) else _plain(form[name].initial) for name in form.changed_data
    }


def _stated(form: BaseForm) -> dict[str, Kept]:
    return {
        name: "(hidden)" if _is_hidden(name) else _plain(form.cleaned_data.get(name))
        for name in form.changed_data
    }


def _plain(value: object) -> Kept:
    """As the log can keep it; rows by their id."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Model):
        return cast(Kept, value.pk)
    if isinstance(value, Iterable):
        return sorted(str(_plain(each)) for each in value)
    return str(value)
