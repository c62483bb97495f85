"""How much work brings pictures back: rows, a section of the page, and a figure."""
