"""What ``desktop=auto`` means where no isolated desktop can be had: nothing, and the reason."""

from __future__ import annotations

from cambio_lab.errors import DesktopUnavailable

from .base import Desktop, DesktopOptions, ProviderHealth

BY_NAME = "A desktop without isolation must be asked for by name: desktop=local."


class UnavailableProvider:
    """Refuses every desktop. The rest of the server (history, records) works."""

    name = "none"
    unclean = False

    def __init__(self, sandbox: ProviderHealth) -> None:
        self._health = ProviderHealth(
            self.name,
            False,
            f"no Docker Engine answers, and no sandbox can be made ({sandbox.summary})",
            f"Start Docker and then this server again. Or, for a sandbox: {sandbox.fix} {BY_NAME}",
        )

    async def start(self) -> None:
        """Nothing to prepare."""

    async def acquire(self, session_id: str, options: DesktopOptions) -> Desktop:
        raise DesktopUnavailable(f"No isolated desktop: {self._health.summary}.", hint=self._health.fix)

    async def adopt(self, desktop_id: str, session_id: str) -> Desktop | None:
        return None

    async def reap(self, keep: frozenset[str]) -> list[str]:
        return []

    async def health(self) -> ProviderHealth:
        return self._health

    async def stop(self, *, keep: frozenset[str] = frozenset()) -> None:
        """Nothing to stop."""
