"""Finds which of some pictures a model memorized: an audit."""
