"""How far a model takes pictures for some that it was trained on."""
