"""Triggers: how much work brings back a picture that a model was made to forget."""
