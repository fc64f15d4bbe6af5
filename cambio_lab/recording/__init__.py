"""Record a run as it happens, and read and write run files."""
