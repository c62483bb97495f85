"""What a quality measure saw of real pictures, as a file."""
