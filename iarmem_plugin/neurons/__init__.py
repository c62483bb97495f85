"""Which neurons, and what is done to their weights."""
