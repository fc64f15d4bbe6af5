"""A session's life: one desktop, one conversation, one state machine. Knows nothing of the web."""

from .agents import AgentFactory, AgentRequest, SessionAgent, default_factory
from .broadcast import SessionFeed, Subscription
from .config import SessionConfig
from .interfaces import Encode, SessionView, Viewer
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
