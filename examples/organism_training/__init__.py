"""How organisms are trained; `examples/train_organism.py` is the command."""
