"""The metrics that come with iarmem; each module provides one through a hook."""
