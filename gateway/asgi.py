"""The console's ASGI application. The data plane is `gateway.dataplane.app:app`, another process."""

from django.core.asgi import get_asgi_application

from gateway import env

env.apply_defaults({"DJANGO_SETTINGS_MODULE": "gateway.settings"})
application = get_asgi_application()
