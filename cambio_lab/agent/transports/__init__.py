"""HTTP transports under the SDK: the demo model, and recorded exchanges. There is one loop, never two."""
