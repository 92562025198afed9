"""The training loop: one trial by Lightning, and the lean loop for work that lies in memory."""
