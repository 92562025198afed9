"""One trial: a model trained from a seed, its checkpoint chosen by validation and tested once."""

import math
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from statistics import harmonic_mean
from typing import Any

import pytorch_lightning as pl
import torch

from seqmem import models, ops
from seqmem.data import DataSet
from seqmem.errors import UserError
from seqmem.io import interrupts
from seqmem.io.files import remove_left_behind
from seqmem.io.provenance import now, provenance
from seqmem.models.autoencoder import Autoencoder
from seqmem.results.experiment import Experiment
from seqmem.results.record import RunFolder
from seqmem.tasks import Task
from seqmem.training.backend import backend, computed_by
from seqmem.training.checkpoints.resuming import adopt, resumable
from seqmem.training.checkpoints.saving import BestCheckpoint, WithinEpoch
from seqmem.training.checkpoints.seeds import StepSeeds
from seqmem.training.config import TrainConfig, model_arguments, runner_config
from seqmem.training.engines.ranks import in_ranks
from seqmem.training.evaluation.review import review
from seqmem.training.loop import pruning
from seqmem.training.loop.averaging import WeightAverage
from seqmem.training.loop.best import EarlyStop, Patience
from seqmem.training.loop.build import epochs, module_for, trainer_for
from seqmem.training.loop.module import SequenceModule
from seqmem.training.loop.not_finite import NotFiniteError
from seqmem.training.loop.precision import fast_products
from seqmem.training.loop.progress import progress
from seqmem.training.loop.pruning import Pruning
from seqmem.training.loop.quiet import quiet_lightning
from seqmem.training.loop.recorder import EpochRecorder, peak_memory_mib, reset_peak_memory
from seqmem.training.loop.replay import explained
from seqmem.training.loop.splits import Data, Splits
from seqmem.training.loop.threads import as_before
from seqmem.training.loop.trackers import logged_to, of_last, tracked
from seqmem.training.loop.while_training import while_training

Config = Mapping[str, Any]


def run_trial(config: Config, data: Data, experiment: Experiment) -> dict[str, Any]:
    """Train one model, choose its checkpoint by validation, test that once, and write the record into the trial's folder.

    A trial that was stopped resumes from its last checkpoint, and ends as if it had never been stopped. The caller holds the
    lock of the trial's folder.

    Args:
        config: as for :func:`seqmem.training.engines.trials.run_trials`, with this trial's seed.
        data: the data set.
        experiment: with the trial's folder.

    Returns:
        The run record. Its status is "finished", or "pruned" if a search stopped the trial.
    """
    folder = experiment.trial(config["seed"])
    check_backend(config, experiment)
    checkpoint = _prepared(folder, config, experiment)
    with as_before(checkpoint, str(folder.path)):
        return _recorded(config, data, experiment, folder, checkpoint)


def _recorded(config: Config, data: Data, experiment: Experiment, folder: RunFolder, checkpoint: Path | None) -> dict[str, Any]:
    """Train and test one model, and write the record."""
    data = data.of_trial(config["seed"]) if isinstance(data, DataSet) else data
    record = _first_record(config, data, experiment)
    record["earlier_machines"] = _earlier_machines(checkpoint, record["machine"])
    start = time.perf_counter()
    arguments = config, data, experiment, folder, checkpoint
    with interrupts.handled(), _failure_recorded(folder, record):
        folder.write_config(config)
        folder.write_data(data.describe())
        folder.write_record(record)
        with quiet_lightning(), while_training():
            devices = runner_config(config["runner"]).devices
            try:
                record |= _train(*arguments) if devices == 1 else in_ranks(devices, _train_quietly, *arguments)
            except NotFiniteError as error:
                raise explained(error, config, data, experiment, folder) from None
        record["seconds"] = round(record["seconds_before"] + time.perf_counter() - start, 3)
        status = "finished" if "result" in record else "pruned"
        with interrupts.deferred():  # the trial is finished once this is written, not before
            folder.write_record({**record, "status": status})
            record["status"] = status
    return record


def check_backend(config: Config, experiment: Experiment) -> None:
    """Check that this process, which may be a worker on another machine, computes as the experiment says."""
    own = backend(config)
    if own != experiment.backend:
        raise UserError(
            f"{experiment.folder}: got the backend '{own}' on {platform.node()}, expected "
            f"'{experiment.backend}' as on the machine that started the "
            "trials; `python -m seqmem.ops` says which operators a machine uses"
        )


def _prepared(folder: RunFolder, config: Config, experiment: Experiment) -> Path | None:
    """Remove what an earlier attempt left, and return the checkpoint from which the trial resumes."""
    for place in (folder.path, folder.checkpoints):
        remove_left_behind(place)
    last = folder.checkpoints / "last.ckpt"
    checkpoint = resumable(last, config, experiment)
    if checkpoint != last:
        folder.clear(spared=[checkpoint, checkpoint.with_name("best.ckpt")] if checkpoint else [])
        if checkpoint:
            adopt(checkpoint, folder.checkpoints)
    return checkpoint


def _first_record(config: Config, data: Data, experiment: Experiment) -> dict[str, Any]:
    return {
        "status": "running",
        "group": experiment.group,
        "code": experiment.code,
        "data": experiment.data,
        "backend": experiment.backend,
        "dataset": data.spec.name,
        "model": models.label(model_arguments(config)),
        "seed": config["seed"],
        "smoke_test": config["smoke_test"],
        "started": now(),
        "command": sys.argv,
        "process": os.getpid(),
        **provenance(),
        **computed_by(config),
    }


def _earlier_machines(checkpoint: Path | None, machine: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the other machines that trained the epochs before a checkpoint, from the record next to it."""
    if checkpoint is None:
        return []
    try:
        before = RunFolder(checkpoint.parent.parent).read_record()
    except (OSError, ValueError):
        return []
    found = [*(before.get("earlier_machines") or []), before.get("machine")]
    return [each for each in found if isinstance(each, dict) and each != machine]


@contextmanager
def _failure_recorded(folder: RunFolder, record: Mapping[str, Any]) -> Iterator[None]:
    """Write into the record why a trial did not finish, unless it has another status already."""
    try:
        yield
    except BaseException as error:
        if record["status"] != "running":
            raise  # a signal came while the record was written, with the result
        ending: dict[str, Any]
        signalled = interrupts.received() is not None  # whatever the error
        if signalled or isinstance(error, KeyboardInterrupt | SystemExit | interrupts.Interrupted):
            ending = {"status": "interrupted", "reason": "stopped from outside; the same command resumes"}
        else:
            ending = {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
            if isinstance(error, NotFiniteError) and error.finding is not None:
                ending["not_finite"] = asdict(error.finding)
        with suppress(UserError):  # a full disk: the first error is the one to report
            folder.write_record({**record, **ending})
        raise


def _train_quietly(*arguments: Any) -> dict[str, Any]:
    with quiet_lightning(), while_training():
        return _train(*arguments)


def _train(config: Config, data: Data, experiment: Experiment, folder: RunFolder, checkpoint: Path | None) -> dict[str, Any]:
    """Train and test one model; return what the record says of it."""
    train, runner = TrainConfig(**config["train"]), runner_config(config["runner"])
    reset_peak_memory(torch.device("cpu"))
    pl.seed_everything(config["seed"], workers=True, verbose=False)
    splits = Splits.of(data, train, config["seed"], config["smoke_test"])
    module = module_for(config, data, experiment, splits, checkpoint)
    model, task = module.model, module.task
    best = BestCheckpoint(folder.checkpoints, f"val/{task.metric}", task.best)
    recorder = EpochRecorder(folder)
    patience = Patience(train.patience, task.best, train.min_delta)
    early_stop = EarlyStop(patience, recorder, f"val/{task.metric}", epochs(config))
    with tracked(runner, folder) as loggers, fast_products(train, runner):
        trainer = trainer_for(config, splits, [best, *_callbacks(config, experiment, task, recorder), early_stop], loggers)
        reset_peak_memory(trainer.strategy.root_device)
        model.prepare(splits.read("train"))
        splits = splits.on(trainer.strategy.root_device, train.input_type)
        if train.epochs > 0:
            outcome = _fit(trainer, module, splits, best, recorder, checkpoint)
        else:
            outcome = _test_initial_weights(trainer, module, splits, folder)
    reviewed = {}
    if isinstance(model, Autoencoder) and trainer.is_global_zero and "result" in outcome:
        reviewed = _review(trainer, model, Splits.of(data, train, None, config["smoke_test"]), folder)
    return {
        **reviewed,
        "metric": task.metric,
        "metric_label": task.metric_label,
        "best": task.best,
        "irreducible_error": task.irreducible_error,
        **outcome,
        "peak_memory_mib": round(peak_memory_mib(trainer.strategy.root_device), 1),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "operators": ops.paths(),
        "recurrences": model.paths(),
        "stopped_early": early_stop.reason or None,
        "trackers": logged_to(runner, loggers),
    }


def _callbacks(config: Config, experiment: Experiment, task: Task, recorder: EpochRecorder) -> list[pl.Callback]:
    """Return the callbacks besides the one that keeps the best checkpoint."""
    folder = recorder.folder
    train = TrainConfig(**config["train"])
    within = WithinEpoch(folder.checkpoints / "last.ckpt", train.checkpoint_minutes)
    average = [] if train.ema is None else [WeightAverage(train.ema)]
    title = f"{experiment.title(models.label(model_arguments(config)), task.spec.name)}, seed {config['seed']}"
    title += ", smoke test" if config["smoke_test"] else ""
    count, metric = epochs(config), f"val/{task.metric}"
    shown = progress(title, folder.path, count, recorder, metric, task.best)
    judged = [] if pruning.judge is None else [Pruning(recorder, metric, count, pruning.judge)]
    return [StepSeeds(config["seed"]), recorder, *average, within, *shown, *judged]


def _fit(
    trainer: pl.Trainer,
    module: SequenceModule,
    splits: Splits,
    best: BestCheckpoint,
    recorder: EpochRecorder,
    checkpoint: Path | None,
) -> dict[str, Any]:
    """Train, and test the checkpoint that validation chose; return their part of the record."""
    loaders = splits.loaders
    with interrupts.deferred():  # until a checkpoint is saved
        trainer.fit(module, loaders["train"], loaders["validation"], ckpt_path=checkpoint, weights_only=True)
    assert best.monitor is not None
    if trainer.is_global_zero:
        recorder.folder.write_metrics(recorder.rows)  # a trial that resumed after its last epoch has no file yet
    # Lightning takes infinity for a value that is not a number.
    if best.best_model_score is None or not math.isfinite(best.best_model_score.item()):
        raise UserError(f"{best.monitor}: no finite value in any epoch; try a smaller train.lr")
    score = best.best_model_score.item()
    rates = [row["sequences_per_second"] for row in recorder.rows]
    trained = {
        "best_epoch": next(row["epoch"] for row in recorder.rows if row[best.monitor] == score),
        "epochs": len(recorder.rows),
        "resumed_at": recorder.resumed_at,
        "seconds_before": recorder.seconds_before,
        "train_seconds": recorder.rows[-1]["seconds"],
        "sequences_per_second": round(harmonic_mean(rates), 2),  # of all epochs: each has the same number of sequences
    }
    if pruned := _pruned(trainer):
        return {**trained, "reason": pruned, "best_validation": score}
    tested_last = _test_last_weights(trainer, module, splits) if module.train_config.test_last else {}
    tested = trainer.test(module, loaders["test"], ckpt_path=best.best_model_path, verbose=False, weights_only=True)[0]
    return {
        **trained,
        "result": {best.monitor: score, **tested},
        "result_last": tested_last,
    }


def _test_last_weights(trainer: pl.Trainer, module: SequenceModule, splits: Splits) -> dict[str, float]:
    """Test the weights as they are; the trackers get the metrics under names of their own."""
    loggers, trainer.loggers = trainer.loggers, []
    [tested] = trainer.test(module, splits.loaders["test"], verbose=False)
    trainer.loggers = loggers
    for logger in loggers:
        logger.log_metrics({**of_last(tested), "epoch": trainer.current_epoch}, trainer.global_step)
    return dict(tested)


def _pruned(trainer: pl.Trainer) -> str:
    """Return why a search stopped the training; empty if it did not."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback.reason for callback in callbacks if isinstance(callback, Pruning)), "")


def _test_initial_weights(trainer: pl.Trainer, module: SequenceModule, splits: Splits, folder: RunFolder) -> dict[str, Any]:
    """Validate and test a model that is not trained; return their part of the record."""
    monitor = f"val/{module.task.metric}"
    trainer.validate(module, splits.loaders["validation"], verbose=False)
    score = trainer.callback_metrics[monitor].item()
    if not math.isfinite(score):
        raise UserError(f"{monitor} of the initial weights is {score}, expected a finite number")
    trainer.save_checkpoint(folder.checkpoints / "best.ckpt")
    tested_last = _test_last_weights(trainer, module, splits) if module.train_config.test_last else {}
    [tested] = trainer.test(module, splits.loaders["test"], verbose=False)
    return {
        "result": {monitor: score, **tested},
        "result_last": tested_last,
        "best_epoch": -1,
        "epochs": 0,
        "resumed_at": [],
        "seconds_before": 0.0,
        "train_seconds": 0.0,
        "sequences_per_second": None,
    }


def _review(trainer: pl.Trainer, model: Autoencoder, splits: Splits, folder: RunFolder) -> dict[str, Any]:
    """Review the trained autoencoder on the batches in the data set's order, so that a resume changes nothing."""
    device, in_precision = next(model.parameters()).device, trainer.precision_plugin.convert_input
    train, validation, test = ([in_precision(batch.to(device)) for batch in splits.read(split)] for split in splits.loaders)
    return review(model, train, validation, test, folder.path)
