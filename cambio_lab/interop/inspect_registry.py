"""What Inspect finds by its entry point: the sandbox provider ``cambio`` and the agent ``cambio_agent``."""

from .inspect_agent import cambio_agent
from .inspect_sandbox import CambioSandbox

__all__ = ["CambioSandbox", "cambio_agent"]
