"""Networks that users bring as files: what runs them, and how pictures are made ready for them."""
