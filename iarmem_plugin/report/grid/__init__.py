"""What a comparison of many arms adds to a report: tables as CSV, their figure, and the plan."""
