"""Measure what an intervention changed: extraction, similarity, image quality, statistics."""
