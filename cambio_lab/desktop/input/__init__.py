"""Keyboard and pointer over RFB."""
