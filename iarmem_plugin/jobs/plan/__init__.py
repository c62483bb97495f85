"""What a comparison is to run: the plan, as a file or as Python objects, and its arms."""
