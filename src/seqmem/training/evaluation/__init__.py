"""A trained model on a split: loss and metrics, predictions, excerpts, and what autoencoders make of their data."""
