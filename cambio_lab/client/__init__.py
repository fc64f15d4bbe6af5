"""A client of the REST and WebSocket API for Python programs; needs neither IPython nor Jupyter."""
