"""Checkpoints, and what together makes a resume exact.

A trial that was killed at any moment ends as if it had never been stopped, bit for bit. Six things make that so:

===========================================  =================================================================================
what                                         where
===========================================  =================================================================================
weights, optimiser and schedule state        Lightning's checkpoint, written whole or not at all (``saving.AtomicCheckpointIO``)
the best epoch so far                        ``saving.BestCheckpoint``: ``best.ckpt`` beside ``last.ckpt``
what an epoch has gathered so far            ``saving.WithinEpoch``: carried state and metrics of ``SequenceModule``
the batches that the epoch has still to see  ``seqmem.data.dataset.BatchLoader``; their order follows from seed and epoch
random numbers of a step                     ``seeds.StepSeeds``: they follow from seed, epoch and batch, so none are saved
rows of metrics.csv, seconds, throughput     ``seqmem.training.loop.recorder.EpochRecorder``
===========================================  =================================================================================

``resuming`` decides from which checkpoint a trial resumes, and refuses one of other settings, data or weights.
"""
