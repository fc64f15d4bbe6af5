"""What lives in a kernel or a script: a client of the HTTP and WebSocket API, its panel, and a page that remembers."""
