"""Before you switch: an uploaded month of usage from elsewhere, re-priced. Nothing is kept."""

from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_http_methods

from gateway.console import switching as prices_elsewhere
from gateway.console.access import tenant_page
from gateway.console.forms import PlainForm
from gateway.console.page_frame import render_page
from gateway.models import Member
from providers.imports import usage_files


class UsageFileForm(PlainForm):
    file = forms.FileField(
        label="Usage export",
        allow_empty_file=True,
        max_length=200,
        help_text="CSV of OpenAI, Anthropic or OpenRouter, or LiteLLM's spend logs; up to 2.4 MB.",
    )


@require_http_methods(["GET", "HEAD", "POST"])
@tenant_page
def switching(request: HttpRequest, member: Member) -> HttpResponse:
    if request.method != "POST":
        return _page(request, member, UsageFileForm())
    form = UsageFileForm(request.POST, request.FILES)
    if not form.is_valid():
        return _page(request, member, form, status=422)
    try:
        found = usage_files.read(form.cleaned_data["file"])
    except usage_files.UsageFileRefused as refused:
        form.add_error("file", f"Not read: {refused}.")
        return _page(request, member, form, status=422)
    comparison = prices_elsewhere.compare(found, tenant_id=member.tenant_id, now=timezone.now())
    return _page(request, member, form, found=found, comparison=comparison)


def _page(
    request: HttpRequest, member: Member, form: UsageFileForm, *, status: int = 200, **more: Any
) -> HttpResponse:
    context = {"form": form, "shown_max": prices_elsewhere.SHOWN_MAX, **more}
    return render_page(
        request, "console/switching.html", context, nav="overview", member=member, status=status
    )
