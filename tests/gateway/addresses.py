"""Every address of pages, management API and admin console, in every way in which they offer it:
for tests and benches that ask them all."""

from itertools import product
from typing import Any, Final

from django.contrib import admin
from django.db.models import Model
from django.test import Client
from django.urls import reverse

from gateway.api.urls import urlpatterns as api_urlpatterns
from gateway.console.urls import urlpatterns
from tests.gateway import belongings
from tests.gateway.long_history import Known

# Streams of marks, of which there is no end.
FEEDS: Final = ("live/home/", "live/board/", "live/requests/")
# What changes something, or leaves the installation.
NOT_READ: Final = ("logout/", "sign-on/")
# The first choices of a filter, of which the first chooses all.
CHOICES_MAX: Final = 4
SEARCHES: Final = ("aurora", "0193", "17", "none at all", "7f3e9c1a-0000-7000-8000-000000000001")
OBJECT_PAGES: Final = ("change", "history", "delete")
# What every model of the admin console has.
DJANGO_S: Final = (*OBJECT_PAGES, "add", "changelist", "password_change")


def of_pages(known: Known) -> list[str]:
    """The pages of a tenant and of the public."""
    routes = belongings.routes_of(urlpatterns)
    pages = [f"/{known.address(r)}" for r in routes if r not in FEEDS and r not in NOT_READ]
    return pages + [f"/overview/?span={span}" for span in ("day", "week", "month")]


def of_request_list(known: Known) -> list[str]:
    return [f"/requests/?{query}" for query in filters(known)]


def of_calls(known: Known) -> list[str]:
    """The calls of the management API that read."""
    slug = known.ids["tenant"]
    routes = belongings.routes_of(api_urlpatterns)
    calls = [f"/api/{known.address(route)}" for route in routes if not route.startswith("workers/")]
    long = [f"{call}?limit=200" for call in calls]
    return [
        *calls,
        *long,
        *(f"/api/v1/tenants/{slug}/requests/?{query}" for query in filters(known)),
    ]


def filters(known: Known) -> list[str]:
    """Every two and more filters of a list of requests: what is usual, rare, and not there."""
    values = {
        "model": ("", "model-1", "none"),
        "supplier": ("", "seller-1", "none"),
        "outcome": ("", "ok", "deadline", "upstream_cut", "refused"),
        "key": ("", str(known.key), str(known.unused_key)),
    }
    queries = [
        "&".join(f"{name}={value}" for name, value in zip(values, chosen, strict=True) if value)
        for chosen in product(*values.values())
    ]
    return [*queries, "before=2026-01-01T00:00:00Z"]


def of_list(client: Client, model: type[Model]) -> list[str]:
    """A list of the admin console in every way in which its page offers it."""
    plain = _admin(model, "changelist")
    page: Any = client.get(plain).context_data["cl"]
    queries = [f"p={page.paginator.num_pages}"]
    for spec in page.filter_specs:
        choices = list(spec.choices(page))[:CHOICES_MAX]
        queries += [choice["query_string"].lstrip("?") for choice in choices]
    for place, column in enumerate(page.list_display):
        if page.get_ordering_field(column):
            queries += [f"o={place}", f"o=-{place}"]
    if page.search_fields:
        queries += [f"q={term}" for term in SEARCHES]
    return [plain, *(f"{plain}?{query}" for query in dict.fromkeys(queries) if query)]


def of_objects(model: type[Model]) -> list[str]:
    """A form for a new row, and the pages of the newest."""
    newest = model._default_manager.order_by("-pk").first()
    pages = [_admin(model, "add")]
    return pages + [_admin(model, page, newest.pk) for page in OBJECT_PAGES if newest is not None]


def of_admin() -> list[str]:
    """What the admin console has besides lists and rows."""
    pages = [reverse(f"admin:{name}") for name in ("index", "password_change")]
    pages += [f"{reverse('admin:search')}?s={term}" for term in SEARCHES]
    for model, options in admin.site._registry.items():
        listed = f"{model._meta.app_label}_{model._meta.model_name}_"
        names = [pattern.name for pattern in options.get_urls() if pattern.name]
        own = [name for name in names if name.removeprefix(listed) not in DJANGO_S]
        pages += [reverse(f"admin:{name}") for name in own]
    return pages


def _admin(model: type[Model], page: str, *args: Any) -> str:
    meta = model._meta
    return reverse(f"admin:{meta.app_label}_{meta.model_name}_{page}", args=args)
