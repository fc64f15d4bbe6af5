"""What runs inside a sandbox, as its process 1. Standard library only, Python 3.9 or newer: it is the host's own."""
