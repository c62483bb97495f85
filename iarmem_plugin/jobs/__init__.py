"""Whole jobs, each a short sequence of verbs."""
