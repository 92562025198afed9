"""Checkpoints, and everything that makes a resume exact.

A trial that was killed at any moment ends with the same bits as one that was not. Seven things together make that true:

===========================================  =================================================================================
what                                         where
===========================================  =================================================================================
weights, optimiser and schedule state        Lightning's checkpoint, written whole or not at all (``saving.AtomicCheckpointIO``)
the best epoch so far                        ``saving.BestCheckpoint``: ``best.ckpt`` next to ``last.ckpt``
sums within an epoch                         ``saving.WithinEpoch``: carried state, metrics, and gradients of an optimiser step
                                             of several batches, of ``loop.module.SequenceModule``
averages of the weights                      ``loop.averaging.WeightAverage``: they are the checkpoint's weights; the weights
                                             themselves are beside them
remaining batches of the epoch               ``seqmem.data.dataset.BatchLoader``; their order follows from seed and epoch
random numbers of a step                     ``seeds.StepSeeds``: they follow from seed, epoch and batch, so none are saved
rows of metrics.csv, seconds, throughput     ``loop.recorder.EpochRecorder``; whether to stop early follows from the rows
===========================================  =================================================================================

The model's own schedules follow the number of the epoch (``SequenceModel.on_epoch``), so they need no state. ``resuming``
chooses the checkpoint from which a trial resumes, and refuses one of different settings, data or weights.
"""
