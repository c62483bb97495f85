"""Is it the neurons? What an edit leaves, against random neurons that cost as much."""
