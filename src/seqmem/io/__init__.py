"""Files and the machine: atomic writes, locks, archives, downloads, readers of data sets' formats, command-line errors."""
