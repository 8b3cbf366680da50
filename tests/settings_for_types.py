"""Settings for the type checker, which loads Django's models but never opens a connection."""

from gateway import env

env.apply_defaults(
    {
        "DATABASE_URL": "postgresql://nobody@/none?host=/nonexistent",
        "REDIS_URL": "unix:///nonexistent/redis.sock?db=0",
        "TOKENHOUSE_SECRET_KEY": "only-for-types-" + "x" * 32,
        "TOKENHOUSE_CREDENTIAL_KEYS": "b25seS1mb3ItdHlwZXMtMDEyMzQ1Njc4OS1hYmNkZWY=",
    }
)

from gateway.settings import *  # noqa: E402, F403

# With an address here, `makemigrations --check` would wait for a server that is not there.
DATABASES = {"default": {"ENGINE": "django.db.backends.dummy"}}
