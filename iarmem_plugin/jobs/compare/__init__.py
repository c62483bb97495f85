"""Many arms at once: the plan, its cells, its workers, and the report."""
