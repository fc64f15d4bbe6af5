"""Desktops as plain processes of this machine: not an isolation boundary."""
