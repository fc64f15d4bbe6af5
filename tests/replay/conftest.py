"""The fixtures of this folder."""

from tests.recording.parts import open_workshop, workshop  # noqa: F401  (fixtures)
