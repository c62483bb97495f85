"""What `meta_evaluation.py` is made of: pairs of small models, what is measured, tables."""
