"""How deep an edit goes: what the blocks of an edited model hand on, put into the original."""
