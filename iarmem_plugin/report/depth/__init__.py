"""How depth is shown: rows, and a section of the page."""
