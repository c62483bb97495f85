"""An example plugin for iarmem."""
