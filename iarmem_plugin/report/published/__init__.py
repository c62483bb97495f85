"""Published numbers, and which arms of a report they belong beside."""
