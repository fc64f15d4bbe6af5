"""The documented surface: one module for each section of the API reference. ``routes.py`` is the map."""
