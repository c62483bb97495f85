"""What triggers bring back: attempts on pictures, and how many are recovered by each budget."""
