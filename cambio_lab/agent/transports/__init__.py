"""Replies that no service makes: the demo model, its script, and a client in the place of the model."""
