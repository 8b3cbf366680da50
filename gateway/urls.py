"""Addresses of the console process: pages of the teams, admin, management API."""

from django.contrib import admin
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import include, path
from django.views.decorators.http import require_safe
from django.views.generic import RedirectView

from gateway.version import VERSION


@require_safe
def health(request: HttpRequest) -> HttpResponse:
    """Alive, and which release; says nothing of the services behind it."""
    return JsonResponse({"status": "ok", "version": VERSION})


handler500 = "gateway.console.error_pages.server_error"

urlpatterns = [
    path("health", health, name="health"),
    # One door to sign in, with one limit on tries.
    path("admin/login/", RedirectView.as_view(pattern_name="login", query_string=True)),
    path("admin/", admin.site.urls),
    path("api/", include("gateway.api.urls")),
    path("", include("gateway.console.urls")),
]
