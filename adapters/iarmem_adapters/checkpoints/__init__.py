"""Weight files: reading them, telling whose they are, putting them into networks."""
