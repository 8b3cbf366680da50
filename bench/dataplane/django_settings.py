"""The console's settings, middlewares included, with one view that proxies: see django_view."""

from gateway.settings import *  # noqa: F403

ROOT_URLCONF = "bench.dataplane.django_view"
ALLOWED_HOSTS = ["127.0.0.1"]
