"""The settings of the data plane: who may call it from a browser, and its limits.

Part of `gateway.settings`, where they are read from.
"""

from gateway import env

# --- browsers ------------------------------------------------------------------------------------
DATAPLANE_CORS_ORIGINS = env.words(
    "TOKENHOUSE_CORS_ORIGINS",
    purpose="origins whose pages may call the API from a browser, such as https://app.example, "
    "separated by commas; * for any, none by default",
)

# --- data plane limits ---------------------------------------------------------------------------
DATAPLANE_BODY_BYTES_MAX = env.integer(
    "TOKENHOUSE_BODY_BYTES_MAX",
    purpose="largest request body the API reads, in bytes",
    default=32 * 1024 * 1024,
    minimum=1024,
    maximum=1024**3,
)
DATAPLANE_CONNECT_TIMEOUT_MS = env.integer(
    "TOKENHOUSE_CONNECT_TIMEOUT_MS",
    purpose="how long connecting to a provider may take",
    default=5_000,
    minimum=100,
    maximum=60_000,
)
DATAPLANE_FIRST_BYTE_TIMEOUT_MS = env.integer(
    "TOKENHOUSE_FIRST_BYTE_TIMEOUT_MS",
    purpose="how long a provider may be silent before its first byte",
    default=60_000,
    minimum=100,
    maximum=600_000,
)
DATAPLANE_FIRST_TOKEN_TIMEOUT_MS = env.integer(
    "TOKENHOUSE_FIRST_TOKEN_TIMEOUT_MS",
    purpose="how long a provider may take to its first token",
    default=120_000,
    minimum=100,
    maximum=900_000,
)
DATAPLANE_TOKEN_GAP_TIMEOUT_MS = env.integer(
    "TOKENHOUSE_TOKEN_GAP_TIMEOUT_MS",
    purpose="how long a provider may be silent between two tokens",
    default=30_000,
    minimum=100,
    maximum=600_000,
)
DATAPLANE_DEADLINE_MS = env.integer(
    "TOKENHOUSE_DEADLINE_MS",
    purpose="when every request is ended, however it goes",
    default=600_000,
    minimum=1_000,
    maximum=3_600_000,
)
DATAPLANE_WRITE_STALL_MS = env.integer(
    "TOKENHOUSE_WRITE_STALL_MS",
    purpose="how long a client may stop reading before it is cut",
    default=30_000,
    minimum=100,
    maximum=600_000,
)
DATAPLANE_STREAM_BYTES_MAX = env.integer(
    "TOKENHOUSE_STREAM_BYTES_MAX",
    purpose="bytes in flight per stream, at most",
    default=256 * 1024,
    minimum=4096,
    maximum=64 * 1024 * 1024,
)
DATAPLANE_HELD_BYTES_MAX = env.integer(
    "TOKENHOUSE_HELD_BYTES_MAX",
    purpose="bytes of request bodies and whole answers that one API process holds, at most",
    default=512 * 1024 * 1024,
    minimum=1024 * 1024,
    maximum=64 * 1024**3,
)
DATAPLANE_CONNECTIONS_MAX = env.integer(
    "TOKENHOUSE_CONNECTIONS_MAX",
    purpose="connections of one API process, at most, where it may have the descriptors for them; "
    "those without a request yield from half of it on",
    default=4_096,
    minimum=32,
    maximum=40_000,
)
DATAPLANE_DRAIN_MS = env.integer(
    "TOKENHOUSE_DRAIN_MS",
    purpose="how long running requests may go on when the API is told to stop",
    default=20_000,
    minimum=0,
    maximum=600_000,
)
CLOCK_SKEW_MS_MAX = 500
