"""What seqmem is measured against, written from the papers' mathematics; one file an opponent."""
