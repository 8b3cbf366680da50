"""The console's ASGI application; `gateway.dataplane.app:app` is another process."""

from django.core.asgi import get_asgi_application

from gateway import env

env.apply_defaults({"DJANGO_SETTINGS_MODULE": "gateway.settings"})
application = get_asgi_application()
