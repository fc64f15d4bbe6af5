"""What the agent can do: computer, shell, editor, and functions that a notebook offers."""
