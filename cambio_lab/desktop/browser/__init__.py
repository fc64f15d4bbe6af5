"""Chromium of a desktop, driven through its DevTools pipe on the screen that people watch."""
