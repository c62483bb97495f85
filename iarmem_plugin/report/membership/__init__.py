"""How membership is shown: a table, and files."""
