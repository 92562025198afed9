"""Files: atomic writes, locks, archives, downloads, and readers of the formats of data sets."""
