"""Images in, batches of activations out."""
