"""Speed and memory of seqmem compared with alternative implementations: ``make bench``."""
