"""Files that are written whole or not at all, archives, downloads, and the formats that data sets come in."""
