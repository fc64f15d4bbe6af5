"""A session's life: one desktop, one conversation, one state machine. Knows nothing of the web."""

from .broadcast import SessionFeed, Subscription
from .config import SessionConfig
from .interfaces import AgentFactory, AgentRequest, Encode, SessionAgent, SessionView, Viewer, default_factory
from .registry import Registry
from .session import Session

__all__ = [
    "AgentFactory",
    "AgentRequest",
    "Encode",
    "Registry",
    "Session",
    "SessionAgent",
    "SessionConfig",
    "SessionFeed",
    "SessionView",
    "Subscription",
    "Viewer",
    "default_factory",
]
