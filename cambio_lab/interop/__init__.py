"""Other systems' protocols. Each module needs an extra; none is imported before it is asked for."""
