"""The tables of a plan, each key with what it says."""
