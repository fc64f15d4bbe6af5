"""Other systems' protocols. Each module needs an extra; nothing of the package imports one before it is asked for."""
