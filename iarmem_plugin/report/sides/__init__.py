"""Two results side by side: reports on the same candidates, or scores of the same neurons."""
