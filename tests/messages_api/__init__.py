"""A strict local stand-in for the Messages API: it refuses what the service refuses and looks at what it is sent."""

from .failures import BadGateway, Break, ErrorStatus, NoStop, SseError, Stall, overloaded, rate_limited
from .policies import ColorTarget, Echo, Form, Script, Steps, View, find_color
from .replies import Reply, browse, click, legacy, member, reply, screenshot, text, think, tool
from .server import MessagesApi, Recorded
from .service import refusal_reply

__all__ = [
    "BadGateway",
    "Break",
    "ColorTarget",
    "Echo",
    "ErrorStatus",
    "Form",
    "MessagesApi",
    "NoStop",
    "Recorded",
    "Reply",
    "Script",
    "SseError",
    "Stall",
    "Steps",
    "View",
    "browse",
    "click",
    "find_color",
    "legacy",
    "member",
    "overloaded",
    "rate_limited",
    "refusal_reply",
    "reply",
    "screenshot",
    "text",
    "think",
    "tool",
]
