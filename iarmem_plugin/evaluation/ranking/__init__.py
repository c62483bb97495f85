"""Stage 1 of the attack: training images ranked by how well a model predicts them."""
