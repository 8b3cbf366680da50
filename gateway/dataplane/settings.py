"""The project's settings with the tables' apps only: a data plane process has no pages.

Without the console's apps a process is some 40 MB smaller.
"""

from gateway.settings import *  # noqa: F403

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "billing",
    "providers",
    "gateway",
]
MIDDLEWARE = []
