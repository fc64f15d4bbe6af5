"""A session's life: one desktop, one conversation, one state machine. Knows nothing of the web."""

from .agents import AgentFactory, AgentRequest, SessionAgent, default_factory
from .broadcast import Subscription
from .config import SessionConfig
from .registry import Registry
from .session import Session
from .views import Encode, SessionView, Viewer
from .watch import Watch

__all__ = [
    "AgentFactory",
    "AgentRequest",
    "Encode",
    "Registry",
    "Session",
    "SessionAgent",
    "SessionConfig",
    "SessionView",
    "Subscription",
    "Viewer",
    "Watch",
    "default_factory",
]
