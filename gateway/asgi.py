"""The console's ASGI application; `gateway.dataplane.app:app` is another process."""

from django.conf import settings
from django.core.asgi import get_asgi_application

from gateway import env
from gateway.body_limit import BodyLimit
from gateway.database import schema_check

env.apply_defaults({"DJANGO_SETTINGS_MODULE": "gateway.settings"})
_django = get_asgi_application()
# Only now: it asks the database.
schema_check.check()
application = BodyLimit(_django, bytes_max=settings.DATA_UPLOAD_MAX_MEMORY_SIZE)
