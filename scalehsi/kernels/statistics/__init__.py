"""Statistics of a block, and the counter-based random numbers."""
