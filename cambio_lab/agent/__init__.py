"""From a message to actions: the agent's loop over the Claude API and one desktop."""

from .gate import Gate, LimitReached, Stopped
from .loop import Agent
from .options import AgentOptions, TurnOptions
from .tools import ApprovalPolicy, parse_policy
from .tools.named import ExtraResult, ExtraTools
from .transcript import close_open_batch

__all__ = [
    "Agent",
    "AgentOptions",
    "ApprovalPolicy",
    "ExtraResult",
    "ExtraTools",
    "Gate",
    "LimitReached",
    "Stopped",
    "TurnOptions",
    "close_open_batch",
    "parse_policy",
]
