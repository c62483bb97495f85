"""An audit as a table, as files, and as a page."""
