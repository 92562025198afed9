"""A trained model on a split: loss and metrics, predictions, excerpts, and reviews of autoencoders."""
