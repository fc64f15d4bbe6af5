"""A session's life: one desktop, one conversation, one state machine. Knows nothing of the web."""

from .agent import AgentRequest, RecordedAgent, build_agent
from .broadcast import SessionFeed, Subscription
from .config import SessionConfig
from .interfaces import Encode, SessionView, Viewer
from .registry import Registry
from .session import Session

__all__ = [
    "AgentRequest",
    "Encode",
    "RecordedAgent",
    "Registry",
    "Session",
    "SessionConfig",
    "SessionFeed",
    "SessionView",
    "Subscription",
    "Viewer",
    "build_agent",
]
