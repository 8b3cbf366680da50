"""What the admin pages of all apps share: reading without writing, adding through a service."""

from typing import Any

from django.contrib import messages
from django.db.models import Model
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.html import format_html
from unfold.admin import ModelAdmin

from billing.money import usd_json


def dollars(pico: int | None) -> str:
    """Exact, for tables that people add up."""
    return "—" if pico is None else f"${usd_json(int(pico)).decode()}"


def dollars_per_million(pico: int | None) -> str:
    """A rate: pico-dollars per token are micro-dollars per million tokens."""
    return "—" if pico is None else f"${usd_json(int(pico) * 10**6).decode()}"


def two_lines(first: str, second: str) -> str:
    """A cell with its figure and, smaller, what belongs to it."""
    return format_html("{}<br><small>{}</small>", first, second)


class ReadOnlyAdmin(ModelAdmin):
    """Shows rows that only services write."""

    list_per_page = 50
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class ServiceAdmin(ModelAdmin):
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
        context = {
            **self.admin_site.each_context(request),
            "title": title,
            "secret": secret,
            "hint": hint,
            "opts": self.opts,
        }
        response = TemplateResponse(request, "admin/shown_once.html", context)
        response["Cache-Control"] = "no-store"
        return response
