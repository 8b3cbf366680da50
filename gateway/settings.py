"""Django settings: one name per fact, read once from the environment through `gateway/env.py`.

Console, Celery and data plane share this module; the data plane uses it at start only. Every queue,
timeout and retry has its limit here. Nothing else in the project reads the environment.
"""

from ipaddress import ip_network
from pathlib import Path

from kombu import Queue

from gateway import env
from gateway.console import admin_look
from gateway.database import connections
from gateway.exposure import operators_need_second_factor
from gateway.framework_settings import AUTH_PASSWORD_VALIDATORS as AUTH_PASSWORD_VALIDATORS
from gateway.framework_settings import LOGGING as LOGGING
from gateway.framework_settings import REST_FRAMEWORK as REST_FRAMEWORK
from gateway.version import VERSION

BASE_DIR = Path(__file__).resolve().parent.parent

# --- secrets -------------------------------------------------------------------------------------
SECRET_KEY = env.secret(
    "TOKENHOUSE_SECRET_KEY", purpose="signs the console's sessions; at least 32 random characters"
)
# Fernet keys, newest first: the first encrypts, all decrypt, so a key is rotated by putting a new
# one in front.
CREDENTIAL_KEYS = [
    key.strip()
    for key in env.secret(
        "TOKENHOUSE_CREDENTIAL_KEYS",
        purpose="Fernet keys for providers' credentials, newest first, separated by commas",
    ).split(",")
]

# --- where things are ----------------------------------------------------------------------------
DATABASE_URL = env.url(
    "DATABASE_URL",
    purpose="PostgreSQL 14 or newer; `make up` runs its own when this is not set",
    schemes=("postgresql", "postgres"),
)
REDIS_URL = env.url(
    "REDIS_URL",
    purpose="Redis 6.2 or newer with an append-only file; `make up` runs its own when not set",
    schemes=("redis", "rediss", "unix"),
)
DATABASES = {
    "default": connections.django_database(
        DATABASE_URL,
        connections_max=env.integer(
            "TOKENHOUSE_DATABASE_CONNECTIONS",
            purpose="PostgreSQL connections per process, at most; the console's are shared out "
            "among tenants' pages, the public board, operators and exports",
            default=12,
            minimum=4,
            maximum=200,
        ),
        wait_s=env.integer(
            "TOKENHOUSE_DATABASE_WAIT_MS",
            purpose="how long a process waits for a PostgreSQL connection; the console, where a "
            "person waits, is started with 800",
            default=5_000,
            minimum=100,
            maximum=60_000,
        )
        / 1000,
        answer_timeout_s=env.integer(
            "TOKENHOUSE_DATABASE_ANSWER_S",
            purpose="seconds after which a PostgreSQL that says nothing is given up; a statement "
            "that takes longer than 30 is ended by itself",
            default=35,
            minimum=1,
            maximum=3_600,
        ),
    )
}
DATA_DIR = BASE_DIR / env.text(
    "TOKENHOUSE_DATA_DIR",
    purpose="folder for spool, logs and the embedded services' data; relative to the clone",
    default=".tokenhouse",
)

REDIS_APPENDFSYNC = env.choice(
    "TOKENHOUSE_REDIS_APPENDFSYNC",
    purpose="when the embedded Redis syncs to disk: a host crash loses a second, or nothing",
    default="everysec",
    options=("everysec", "always"),
)

# --- addresses -----------------------------------------------------------------------------------
DATAPLANE_HOST = env.text(
    "TOKENHOUSE_DATAPLANE_HOST", purpose="address the API listens on", default="127.0.0.1"
)
DATAPLANE_PORT = env.integer(
    "TOKENHOUSE_DATAPLANE_PORT",
    purpose="port the API listens on",
    default=8000,
    minimum=1,
    maximum=65535,
)
DATAPLANE_PROCESSES = env.integer(
    "TOKENHOUSE_DATAPLANE_PROCESSES",
    purpose="API processes; one uses one core",
    default=1,
    minimum=1,
    maximum=64,
)
CONSOLE_HOST = env.text(
    "TOKENHOUSE_CONSOLE_HOST", purpose="address the console listens on", default="127.0.0.1"
)
CONSOLE_PORT = env.integer(
    "TOKENHOUSE_CONSOLE_PORT",
    purpose="port the console listens on",
    default=8001,
    minimum=1,
    maximum=65535,
)
PUBLIC_API_URL = env.text(
    "TOKENHOUSE_PUBLIC_API_URL",
    purpose="the API's address as clients see it, shown on pages and in examples",
    default=f"http://{DATAPLANE_HOST}:{DATAPLANE_PORT}",
)
PUBLIC_CONSOLE_URL = env.text(
    "TOKENHOUSE_PUBLIC_CONSOLE_URL",
    purpose="the console's address as people and workers see it",
    default=f"http://{CONSOLE_HOST}:{CONSOLE_PORT}",
)
ALLOWED_HOSTS = env.words(
    "TOKENHOUSE_ALLOWED_HOSTS",
    purpose="host names the console answers to, separated by commas",
    default="127.0.0.1,localhost,[::1]",
)
ADMIN_NETWORKS = [
    ip_network(network)
    for network in env.words(
        "TOKENHOUSE_ADMIN_NETWORKS",
        purpose="networks from which the admin console may be opened, separated by commas",
        default="127.0.0.0/8,::1/128",
    )
]

OPERATORS_NEED_SECOND_FACTOR = operators_need_second_factor(
    env.choice(
        "TOKENHOUSE_OPERATOR_SECOND_FACTOR",
        purpose="whether staff set up a second factor before anything else: always, never, or "
        "unless the console is open to this machine alone",
        default="unless-local",
        options=("always", "unless-local", "never"),
    ),
    listens_on=CONSOLE_HOST,
    public_url=PUBLIC_CONSOLE_URL,
)

# --- who writes the invoices ---------------------------------------------------------------------
INVOICE_SELLER = {
    "legal_name": env.text(
        "TOKENHOUSE_SELLER_NAME", purpose="the seller's name on invoices", default="Tokenhouse"
    ),
    "address": env.text(
        "TOKENHOUSE_SELLER_ADDRESS",
        purpose="the seller's address on invoices; lines separated by |",
        default="",
    ).replace("|", "\n"),
    "country": env.text(
        "TOKENHOUSE_SELLER_COUNTRY", purpose="the seller's country, two letters", default=""
    ),
    "tax_id": env.text(
        "TOKENHOUSE_SELLER_TAX_ID", purpose="the seller's tax number on invoices", default=""
    ),
    "email": env.text(
        "TOKENHOUSE_SELLER_EMAIL", purpose="where questions about invoices go", default=""
    ),
    "payment": env.text(
        "TOKENHOUSE_SELLER_PAYMENT",
        purpose="how to pay, printed on invoices: bank, account, terms",
        default="",
    ),
}

# --- word of budgets -----------------------------------------------------------------------------

EMAIL_HOST = env.text(
    "TOKENHOUSE_EMAIL_HOST",
    purpose="the mail server for notifications; empty sends none",
    default="",
)
EMAIL_PORT = env.integer(
    "TOKENHOUSE_EMAIL_PORT", purpose="its port", default=587, minimum=1, maximum=65_535
)
EMAIL_HOST_USER = env.text("TOKENHOUSE_EMAIL_USER", purpose="its user", default="")
EMAIL_HOST_PASSWORD = env.optional_secret("TOKENHOUSE_EMAIL_PASSWORD", purpose="its password")
EMAIL_USE_TLS = env.boolean("TOKENHOUSE_EMAIL_TLS", purpose="speak TLS to it", default=True)
EMAIL_TIMEOUT = 5
DEFAULT_FROM_EMAIL = env.text(
    "TOKENHOUSE_EMAIL_FROM", purpose="who mails come from", default="tokenhouse@localhost"
)
WEBHOOKS_PRIVATE = env.boolean(
    "TOKENHOUSE_WEBHOOKS_PRIVATE",
    purpose="let webhooks go to private networks and speak http",
    default=False,
)

# --- buying credit -------------------------------------------------------------------------------
STRIPE_API_KEY = env.optional_secret(
    "TOKENHOUSE_STRIPE_API_KEY", purpose="Stripe's secret key; without it no credit can be bought"
)
STRIPE_WEBHOOK_SECRET = env.optional_secret(
    "TOKENHOUSE_STRIPE_WEBHOOK_SECRET",
    purpose="what Stripe signs its messages to /webhooks/stripe/ with",
)
STRIPE_API_URL = env.text(
    "TOKENHOUSE_STRIPE_API_URL", purpose="where Stripe answers", default="https://api.stripe.com"
)

# --- single sign-on ------------------------------------------------------------------------------
OIDC_ISSUER = env.text(
    "TOKENHOUSE_OIDC_ISSUER",
    purpose="the identity provider's address (OpenID Connect); empty: names and passwords only",
    default="",
)
OIDC_CLIENT_ID = env.text(
    "TOKENHOUSE_OIDC_CLIENT_ID", purpose="our name at the identity provider", default=""
)
OIDC_CLIENT_SECRET = env.optional_secret(
    "TOKENHOUSE_OIDC_CLIENT_SECRET", purpose="our secret at the identity provider"
)
OIDC_SCOPES = env.text(
    "TOKENHOUSE_OIDC_SCOPES",
    purpose="what is asked for at the identity provider",
    default="openid email profile",
)
OIDC_GROUPS_CLAIM = env.text(
    "TOKENHOUSE_OIDC_GROUPS_CLAIM",
    purpose="the claim that lists a person's groups",
    default="groups",
)
OIDC_NAME = env.text(
    "TOKENHOUSE_OIDC_NAME",
    purpose="what the button on the sign-in page says",
    default="your company",
)

# --- in-house workers that `make up` starts ------------------------------------------------------
WORKERS_ENABLED = env.boolean(
    "TOKENHOUSE_WORKERS", purpose="whether `make up` starts its two in-house workers", default=True
)
WORKER_PORT = env.integer(
    "TOKENHOUSE_WORKER_PORT",
    purpose="port of the first in-house worker; the second one takes the next",
    default=8101,
    minimum=1,
    maximum=65534,
)
WORKER_THREADS = env.integer(
    "TOKENHOUSE_WORKER_THREADS",
    purpose="threads of each in-house worker; 0 shares the machine's cores among them",
    default=0,
    minimum=0,
    maximum=256,
)
WORKER_QUANTISATION = env.choice(
    "TOKENHOUSE_WORKER_QUANTISATION",
    purpose="int8, or none: the in-house workers then compute in exact fp32, several times slower",
    default="int8",
    options=("int8", "none"),
)
WORKER_USD_PER_HOUR = env.text(
    "TOKENHOUSE_WORKER_USD_PER_HOUR",
    purpose="what this machine costs per hour and worker; empty: assumed, and the board says so",
    default="",
)

QUARANTINE_DAYS = env.integer(
    "TOKENHOUSE_QUARANTINE_DAYS",
    purpose="days after which a quarantined event that nobody resolved is settled at its estimate",
    default=7,
    minimum=1,
    maximum=365,
)

# --- what is forgotten after a while; money never is ----------------------------------------------
REFUSALS_DAYS = env.integer(
    "TOKENHOUSE_REFUSALS_DAYS",
    purpose="days for which refused requests can be looked up",
    default=90,
    minimum=1,
    maximum=3_650,
)
ALERTS_DAYS = env.integer(
    "TOKENHOUSE_ALERTS_DAYS",
    purpose="days for which alerts of budgets and credit are kept, and whether they were delivered",
    default=400,
    minimum=32,
    maximum=3_650,
)
PROCESSOR_EVENTS_DAYS = env.integer(
    "TOKENHOUSE_PROCESSOR_EVENTS_DAYS",
    purpose="days for which messages of the payment processor that are done are kept; it may "
    "repeat one for a month",
    default=400,
    minimum=60,
    maximum=3_650,
)
AUDIT_DAYS = env.integer(
    "TOKENHOUSE_AUDIT_DAYS",
    purpose="days for which the audit log is kept; seven years unless said otherwise",
    default=2_557,
    minimum=400,
    maximum=36_500,
)

# --- the data plane: its limits, declared in their place in the example file ---------------------
from gateway.dataplane_settings import *  # noqa: E402, F403

DATAPLANE_SPOOL_DIR = DATA_DIR / "spool"

# --- Django --------------------------------------------------------------------------------------
DEBUG = env.boolean(
    "TOKENHOUSE_DEBUG",
    purpose="error pages with details; never where others can reach",
    default=False,
)
INSTALLED_APPS = [
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "rest_framework",
    "drf_spectacular",
    "django_htmx",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "billing",
    "providers",
    "gateway",
]
MIDDLEWARE = [
    "gateway.database.lanes.Lanes",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "gateway.middleware.Compression",
    "gateway.middleware.Version",
    "gateway.middleware.ContentSecurityPolicy",
    "gateway.middleware.NoNulInAddresses",
    "gateway.middleware.AdminAddressList",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "gateway.sign_on.second_factor_wall.SecondFactorWall",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]
ROOT_URLCONF = "gateway.urls"
ASGI_APPLICATION = "gateway.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "gateway.middleware.version_in_pages",
            ],
        },
    },
]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}
}
LOGIN_URL = "/login/"
LOGIN_REDIRECT_URL = "/"
# Of allauth only the second factors are used; its other pages have no address here.
ACCOUNT_ADAPTER = "gateway.sign_on.adapters.AccountAdapter"
ACCOUNT_LOGIN_METHODS = {"username"}
ACCOUNT_SIGNUP_FIELDS = ["username*", "password1*"]
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_REAUTHENTICATION_METHODS = ("password", "mfa")
# By person, not by address: neighbours do not spend each other's tries.
ACCOUNT_RATE_LIMITS = {"login_failed": "10/300s/key", "reauthenticate": "20/300s/user"}
MFA_ADAPTER = "gateway.sign_on.adapters.SecondFactorAdapter"
MFA_SUPPORTED_TYPES = ["totp", "webauthn", "recovery_codes"]
MFA_ALLOW_UNVERIFIED_EMAIL = True
MFA_TOTP_ISSUER = "Tokenhouse"
# A clock may be half a minute off.
MFA_TOTP_TOLERANCE = 1
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
IS_HTTPS = PUBLIC_CONSOLE_URL.startswith("https://")
SESSION_COOKIE_SECURE = IS_HTTPS
CSRF_COOKIE_SECURE = IS_HTTPS
# Browsers give passkeys over http to `localhost` alone.
MFA_WEBAUTHN_ALLOW_INSECURE_ORIGIN = not IS_HTTPS
CSRF_TRUSTED_ORIGINS = [PUBLIC_CONSOLE_URL]
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
# Also what `gateway.body_limit` lets into the console at all.
DATA_UPLOAD_MAX_MEMORY_SIZE = 2_621_440

USE_TZ = True
TIME_ZONE = "UTC"
USE_I18N = False
LANGUAGE_CODE = "en-us"
FORMAT_MODULE_PATH = "gateway.formats"

STATIC_URL = "/static/"
STATICFILES_DIRS = [path for path in (BASE_DIR / "static",) if path.is_dir()]
# Served straight from the apps' folders: there is no collection step that could be forgotten.
WHITENOISE_USE_FINDERS = True
WHITENOISE_MAX_AGE = 300

SPECTACULAR_SETTINGS = {
    "TITLE": "Tokenhouse management API",
    "VERSION": VERSION,
    "SERVE_INCLUDE_SCHEMA": False,
}
UNFOLD = admin_look.UNFOLD

# --- Celery (read by gateway/celery.py under the prefix CELERY_) ---------------------------------
CELERY_BROKER_URL = connections.celery_broker(REDIS_URL)
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# A message that is not acknowledged in this time is delivered again; longer than any time limit.
CELERY_BROKER_TRANSPORT_OPTIONS = {"visibility_timeout": 3600, "global_keyprefix": "celery:"}
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_MAX_TASKS_PER_CHILD = 100_000
CELERY_TASK_SOFT_TIME_LIMIT = 60
CELERY_TASK_TIME_LIMIT = 90
CELERY_TASK_QUEUES = [Queue(name) for name in ("money", "boards", "slow")]
CELERY_TASK_DEFAULT_QUEUE = "slow"
CELERY_TASK_CREATE_MISSING_QUEUES = False
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_TIMEZONE = "UTC"
CELERY_ENABLE_UTC = True
