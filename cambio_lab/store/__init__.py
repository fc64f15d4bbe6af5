"""What is kept: one SQLite file and the pictures beside it. Knows nothing of desktops, agents or the web."""

from .database import Operation, together
from .events import EventRow
from .exchanges import ExchangeRow
from .messages import MessageQuery, MessageRow, new_message_id
from .sessions import SORT_KEYS, Listed, Page, SessionQuery, SessionRow, SessionStatus
from .steps import StepRow
from .store import Store

__all__ = [
    "SORT_KEYS",
    "EventRow",
    "ExchangeRow",
    "Listed",
    "MessageQuery",
    "MessageRow",
    "Operation",
    "Page",
    "SessionQuery",
    "SessionRow",
    "SessionStatus",
    "StepRow",
    "Store",
    "new_message_id",
    "together",
]
