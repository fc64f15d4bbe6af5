"""The framebuffer: kept current, watched until it settles, encoded."""
