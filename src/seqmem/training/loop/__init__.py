"""The training loops: Lightning's for the trials of a config, and a lean one for small work in memory.

Both use the same clipping, penalty and check for finite losses (``objective``), optimisers and schedules. Lightning keeps the
best weights in a checkpoint, the lean loop in memory (``best``).
"""
