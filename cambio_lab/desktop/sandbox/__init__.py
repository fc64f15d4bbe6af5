"""Desktops in a sandbox of this machine's kernel: no engine, no root. ``docs/sandbox.md`` describes the walls."""
