"""Desktops in containers of a Docker Engine."""
