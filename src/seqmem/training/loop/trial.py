"""One trial: a model trained from a seed, its checkpoint chosen by validation and tested once."""

import math
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy
from torch.utils.data import DataLoader

from seqmem import models, ops
from seqmem.data.batch import Batch
from seqmem.data.spec import DataSpec
from seqmem.errors import UserError
from seqmem.io.files import remove_left_behind
from seqmem.io.provenance import provenance
from seqmem.models.autoencoder import Autoencoder
from seqmem.results.experiment import Experiment
from seqmem.results.record import RunFolder
from seqmem.tasks import task_for
from seqmem.training.checkpoints.checkpoints import check_weights, read_checkpoint
from seqmem.training.checkpoints.resuming import adopt, resumable
from seqmem.training.checkpoints.saving import AtomicCheckpointIO, BestCheckpoint, WithinEpoch
from seqmem.training.checkpoints.seeds import StepSeeds
from seqmem.training.config import TrainConfig, evaluation_batch_size, limited, model_arguments, runner_config
from seqmem.training.engines.ranks import in_ranks
from seqmem.training.evaluation.review import review
from seqmem.training.loop.freed_memory import freed_memory_kept
from seqmem.training.loop.module import SequenceModule
from seqmem.training.loop.quiet import quiet_lightning
from seqmem.training.loop.recorder import EpochRecorder, peak_memory_mib, reset_peak_memory
from seqmem.training.loop.trackers import tracked


class Data(Protocol):
    """What a data set must offer to be trained on."""

    spec: DataSpec

    def loader(self, split: Literal["train", "validation", "test"], batch_size: int, seed: int | None = 0) -> DataLoader:
        """Batches of a split; those of "train" in an order that ``seed`` and the epoch determine, None: as they are."""

    def describe(self) -> dict[str, Any]:
        """Where the data came from, as JSON-able values."""


def run_trial(config: Mapping[str, Any], data: Data, experiment: Experiment) -> dict[str, Any]:
    """Train one model, choose its checkpoint by validation, test that once, and leave the record in the trial's folder.

    A trial that was stopped goes on from its last checkpoint, and ends as if it had never been stopped. Whoever calls this
    holds the lock of the trial's folder.

    Args:
        config: as for :func:`seqmem.training.engines.trials.run_trials`, with this trial's seed.
        data: the data set.
        experiment: where the trial's folder is.

    Returns:
        The run record.
    """
    folder = experiment.trial(config["seed"])
    for place in (folder.path, folder.checkpoints):
        remove_left_behind(place)
    last = folder.checkpoints / "last.ckpt"
    checkpoint = resumable(last, config, experiment.data)
    if checkpoint != last:
        folder.clear(spared=[checkpoint, checkpoint.with_name("best.ckpt")] if checkpoint else [])
        if checkpoint:
            adopt(checkpoint, folder.checkpoints)
    record: dict[str, Any] = {
        "status": "running",
        "group": experiment.group,
        "code": experiment.code,
        "data": experiment.data,
        "dataset": data.spec.name,
        "model": models.label(model_arguments(config)),
        "seed": config["seed"],
        "smoke_test": config["smoke_test"],
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "process": os.getpid(),
        **provenance(),
    }
    folder.write_config(config)
    folder.write_data(data.describe())
    folder.write_record(record)
    start = time.perf_counter()
    try:
        with quiet_lightning(), freed_memory_kept():
            devices = runner_config(config["runner"]).devices
            arguments = config, data, experiment.data, folder, checkpoint
            record |= _train(*arguments) if devices == 1 else in_ranks(devices, _train_quietly, *arguments)
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)  # Lightning makes the one the other
        told = {
            "status": "interrupted" if stopped else "failed",
            "reason": "stopped from outside; the same command goes on" if stopped else f"{type(error).__name__}: {error}",
        }
        with suppress(UserError):  # where the disk is full, what failed first is what to tell
            folder.write_record({**record, **told})
        raise
    record |= {"status": "finished", "seconds": round(record["seconds_before"] + time.perf_counter() - start, 3)}
    folder.write_record(record)
    return record


def _train_quietly(*arguments: Any) -> dict[str, Any]:
    with quiet_lightning(), freed_memory_kept():
        return _train(*arguments)


def _train(config: Mapping[str, Any], data: Data, checksum: str, folder: RunFolder, checkpoint: Path | None) -> dict[str, Any]:
    train = TrainConfig(**config["train"])
    runner = runner_config(config["runner"])
    reset_peak_memory()
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    task = task_for(data.spec)
    model = models.build(model_arguments(config), data.spec)
    if train.compile:
        model.compile()
    module = SequenceModule(model, task, train)
    if checkpoint:
        check_weights(module, read_checkpoint(checkpoint).weights, checkpoint)
    module.save_hyperparameters({"config": dict(config), "spec": asdict(data.spec), "data": checksum})

    evaluated = evaluation_batch_size(train, data.spec)
    loaders = {
        "train": data.loader("train", train.batch_size, config["seed"]),
        "validation": data.loader("validation", evaluated),
        "test": data.loader("test", evaluated),
    }
    limits = {"train": train.limit_train_batches, "validation": train.limit_val_batches, "test": train.limit_test_batches}
    batches = {split: limited(len(loaders[split]), limit, config["smoke_test"]) for split, limit in limits.items()}

    monitor = f"val/{task.metric}"
    best = BestCheckpoint(folder.checkpoints, monitor, task.best)
    # What several processes hold within an epoch differs.
    within = [WithinEpoch(folder.checkpoints / "last.ckpt", train.checkpoint_minutes)] if runner.devices == 1 else []
    recorder = EpochRecorder(folder)
    interactive = sys.stdout.isatty()
    with tracked(runner, folder) as loggers:
        trainer = pl.Trainer(
            accelerator=runner.accelerator,
            devices=runner.devices,
            precision=train.precision,
            max_epochs=min(train.epochs, 1) if config["smoke_test"] else train.epochs,
            gradient_clip_val=train.gradient_clip_val or None,
            limit_train_batches=batches["train"],
            limit_val_batches=batches["validation"],
            limit_test_batches=batches["test"],
            strategy="auto" if runner.devices == 1 else DDPStrategy(find_unused_parameters=True),
            plugins=[AtomicCheckpointIO(), *([] if runner.devices == 1 else [LightningEnvironment()])],
            callbacks=[
                StepSeeds(config["seed"]),
                best,
                recorder,
                *within,
                *([RichProgressBar(leave=False)] if interactive else []),
            ],
            logger=loggers or False,
            enable_progress_bar=interactive,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        model.prepare(_first(loaders["train"], batches["train"]))
        if train.epochs > 0:
            outcome = _fit(trainer, module, loaders, best, recorder, train.test_last, checkpoint)
        else:
            trainer.validate(module, loaders["validation"], verbose=False)
            score = trainer.callback_metrics[monitor].item()
            if not math.isfinite(score):
                raise UserError(f"{monitor} of the initial weights is {score}, expected a finite number")
            trainer.save_checkpoint(folder.checkpoints / "best.ckpt")
            [tested] = trainer.test(module, loaders["test"], verbose=False)
            outcome = {
                "result": {monitor: score, **tested},
                "result_last": tested if train.test_last else {},
                "best_epoch": -1,
                "epochs": 0,
                "resumed_at": [],
                "seconds_before": 0.0,
                "train_seconds": 0.0,
                "sequences_per_second": None,
            }
    reviewed = {}
    if isinstance(model, Autoencoder) and trainer.is_global_zero:
        device = next(model.parameters()).device
        ordered = {**loaders, "train": data.loader("train", train.batch_size, None)}  # whatever was trained when
        parts = {split: [batch.to(device) for batch in _first(ordered[split], batches[split])] for split in ordered}
        reviewed = review(model, parts["train"], parts["validation"], parts["test"], folder.path)
    return {
        **reviewed,
        "metric": task.metric,
        "best": task.best,
        "irreducible_error": data.spec.irreducible_error,
        **outcome,
        "peak_memory_mib": round(peak_memory_mib(), 1),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "operators": ops.paths(),
        "recurrences": model.paths(),
    }


def _first(loader: DataLoader, count: int) -> Iterator[Batch]:
    """The first batches, made only if they are asked for."""
    yield from islice(loader, count)


def _fit(
    trainer: pl.Trainer,
    module: SequenceModule,
    loaders: Mapping[str, DataLoader],
    best: BestCheckpoint,
    recorder: EpochRecorder,
    test_last: bool,
    checkpoint: Path | None,
) -> dict[str, Any]:
    """Train, and test the checkpoint that validation chose; what of the record tells of it."""
    trainer.fit(module, loaders["train"], loaders["validation"], ckpt_path=checkpoint, weights_only=True)
    assert best.monitor is not None
    if trainer.is_global_zero:
        recorder.folder.write_metrics(recorder.rows)  # for a trial that was complete when it was gone on from
    # Lightning takes an infinite value for one that is no number.
    if best.best_model_score is None or not math.isfinite(best.best_model_score.item()):
        raise UserError(
            f"no epoch ended with a finite {best.monitor}, so there is no checkpoint to test; try a smaller train.lr"
        )
    score = best.best_model_score.item()
    last = recorder.rows[-1]
    after_last = trainer.test(module, loaders["test"], verbose=False)[0] if test_last else {}
    tested = trainer.test(module, loaders["test"], ckpt_path=best.best_model_path, verbose=False, weights_only=True)[0]
    return {
        "result": {best.monitor: score, **tested},
        "result_last": after_last,
        "best_epoch": next(row["epoch"] for row in recorder.rows if row[best.monitor] == score),
        "epochs": len(recorder.rows),
        "resumed_at": recorder.resumed_at,
        "seconds_before": recorder.seconds_before,
        "train_seconds": last["seconds"],
        "sequences_per_second": last["sequences_per_second"],
    }
