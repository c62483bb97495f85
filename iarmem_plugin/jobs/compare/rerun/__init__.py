"""A comparison that is run again, and what differs."""
