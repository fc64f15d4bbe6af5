"""Prometheus collectors, on the default registry that Jupyter Server's ``/metrics`` serves.

Made once, when this module is imported. Labels are bounded: ``endpoint`` is a route's template, never a path, and
``tool`` is a member of the toolset.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

REQUESTS = Counter("http_requests_total", "Total HTTP requests", ["method", "endpoint"])
RESPONSES = Counter("http_responses_total", "HTTP responses by status", ["method", "endpoint", "status"])
REQUEST_SECONDS = Histogram(
    "cambio_lab_http_request_seconds",
    "Time from a request's headers to its answer",
    ["method", "endpoint"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
RATE_LIMITED = Counter("cambio_lab_rate_limited_total", "Requests refused with 429", ["limit"])
REDIS_FAILURES = Counter("cambio_lab_redis_failures_total", "Rate-limit requests to Redis that failed")

SOCKETS = Gauge("cambio_lab_websocket_connections", "Open WebSockets", ["endpoint"])
SOCKET_MESSAGES = Counter("cambio_lab_websocket_messages_total", "Messages on /ws", ["direction"])
SLOW_READERS = Counter("cambio_lab_slow_readers_total", "Times that a reader of /ws was sent to the store to catch up")
VNC_BYTES = Counter("cambio_lab_vnc_bytes_total", "Bytes through /vnc", ["direction"])

SESSIONS = Gauge("cambio_lab_sessions_active", "Sessions that are active now")
SESSIONS_CREATED = Counter("cambio_lab_sessions_created_total", "Sessions created")
SESSIONS_ENDED = Counter("cambio_lab_sessions_ended_total", "Sessions ended", ["status"])
CREATE_SECONDS = Histogram(
    "cambio_lab_session_create_seconds",
    "Time until a new session's desktop is usable",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 120),
)
TURNS = Counter("cambio_lab_turns_total", "Turns by how they ended", ["result"])
TURN_SECONDS = Histogram(
    "cambio_lab_turn_seconds", "Wall time of a turn", buckets=(0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
)
TOOL_CALLS = Counter("cambio_lab_tool_calls_total", "Tool calls", ["tool", "status"])
TOOL_SECONDS = Histogram(
    "cambio_lab_tool_seconds",
    "Where the time of tool calls goes",
    ["part"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 30),
)
MODEL_SECONDS = Histogram(
    "cambio_lab_model_seconds", "Time of one model reply", buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
)
TOKENS = Counter("cambio_lab_tokens_total", "Tokens by kind", ["kind"])
COST = Counter("cambio_lab_cost_usd_total", "Money spent on models, in US dollars")
RETRIES = Counter("cambio_lab_model_retries_total", "Waits for the model's service")
DISK_BYTES = Gauge("cambio_lab_disk_bytes", "Bytes of the database and the screenshots")
