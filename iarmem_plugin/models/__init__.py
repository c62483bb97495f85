"""The wrapped model: loading it, tracing it, saying what it is."""
