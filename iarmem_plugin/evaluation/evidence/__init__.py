"""Whether the chosen neurons matter: arms held against random sets, and what that can show."""
