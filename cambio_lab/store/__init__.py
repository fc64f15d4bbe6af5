"""What is kept: one SQLite file and the screenshots beside it. Knows nothing of desktops, agents or the web."""

from .conversation import MessageQuery, MessageRow, new_message_id
from .database import Operation, together
from .record import EventRow, ExchangeRow, StepRow
from .sessions import SORT_KEYS, Page, SessionQuery, SessionRow, SessionStatus
from .store import Store

__all__ = [
    "SORT_KEYS",
    "EventRow",
    "ExchangeRow",
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
