"""The third job: a mitigated checkpoint as a file, with its card and its list of neurons."""
