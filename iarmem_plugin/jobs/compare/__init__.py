"""Many interventions compared by one plan: what the plan says, and the arms that it makes."""
