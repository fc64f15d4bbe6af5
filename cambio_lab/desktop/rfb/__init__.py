"""The VNC client in the server process and the proxy for viewers."""
