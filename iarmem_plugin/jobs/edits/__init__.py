"""Baselines that edit no chosen neuron, and how any such edit is made and undone."""
