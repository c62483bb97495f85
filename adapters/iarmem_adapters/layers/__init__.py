"""Layers that the families share, and how precisely and quickly they compute."""
