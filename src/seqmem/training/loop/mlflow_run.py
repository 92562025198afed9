"""A run of MLflow that gets the metrics of a trial; requires the extra ``mlflow``."""

import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from time import time
from typing import Any

from pytorch_lightning.loggers import Logger

from seqmem.errors import UserError
from seqmem.io.files import locked, make_folder
from seqmem.results.experiment import identity
from seqmem.results.record import RunFolder, settings

_TRIAL = "seqmem.trial"
_batch = 100  # parameters that MLflow takes at a time
_longest = 500  # characters of a parameter in every version of MLflow
# While a run is opened: MLflow itself repeats a request to a server that does not answer for minutes.
_quick = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}


class MlflowRun(Logger):
    """Lightning's logger for a run of MLflow.

    A trial that resumes continues its run, which may already have the metrics of some epochs: each point is logged once. If
    the server stops to answer, training continues without it. The record then does not name the tracker, so the next call logs
    the rest.

    Args:
        client: of the tracking server or store.
        run: its id.

    Attributes:
        complete: every metric was logged.
    """

    def __init__(self, client: Any, run: str):
        super().__init__()
        self.complete = True
        self._client, self._run = client, run
        self._steps: dict[str, set[int]] = {}

    @property
    def name(self) -> str:
        """Name of the logger."""
        return "mlflow"

    @property
    def version(self) -> str:
        """Id of the run."""
        return self._run

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run has the settings since it was opened."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics of a step, except for those that the run has."""
        from mlflow.entities import Metric

        now, at = round(time() * 1000), step or 0
        try:
            new = {name: value for name, value in metrics.items() if at not in self._logged(name)}
            self._client.log_batch(self._run, metrics=[Metric(name, value, now, at) for name, value in new.items()])
        except Exception as error:  # of MLflow, SQLAlchemy or requests
            if self.complete:
                print(f"warning: runner.mlflow: {_reason(error)}; the same command logs the rest later", file=sys.stderr)
            self.complete = False
            return
        for name in new:
            self._steps[name].add(at)

    def close(self, status: str) -> None:
        """Close the run as FINISHED, FAILED or KILLED."""
        try:
            self._client.set_terminated(self._run, status)
        except Exception:  # as for metrics
            self.complete = False

    def _logged(self, name: str) -> set[int]:
        if name not in self._steps:
            self._steps[name] = {point.step for point in self._client.get_metric_history(self._run, name)}
        return self._steps[name]


def open_run(place: str, experiment: str, folder: RunFolder) -> MlflowRun:
    """Open the run of a trial: a new one, or the one that it had before.

    Args:
        place: a tracking URI, or a folder, which gets a database and the artifacts.
        experiment: name of MLflow's experiment, which is created if it does not exist.
        folder: of the trial, with its record and its config.

    Raises:
        UserError: there is no such server or store, or it does not take the run.
    """
    uri = tracking_uri(place)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")  # no connection survives a fork
    try:
        with _quickly(), _created_once(uri):
            return _opened(uri, experiment, folder)
    except UserError:
        raise
    except Exception as error:  # of MLflow, SQLAlchemy or requests
        raise UserError(f"runner.mlflow: got '{place}': {_reason(error)}") from None


def label(place: str) -> str:
    """Return the name by which a trial's record notes that this store has its metrics; it has no password."""
    return f"mlflow at {re.sub('//[^/@]*@', '//', tracking_uri(place))}"


def tracking_uri(place: str) -> str:
    """Return the tracking URI of a place: a folder stands for the database ``mlflow.db`` in it.

    The path of a database file is absolute, so that it means the same in every working folder.

    >>> tracking_uri("http://127.0.0.1:5000"), tracking_uri("/data/mlflow")
    ('http://127.0.0.1:5000', 'sqlite:////data/mlflow/mlflow.db')
    """
    if not _is_uri(place):
        return f"sqlite:///{Path(place).absolute() / 'mlflow.db'}"
    file = re.fullmatch(r"(sqlite(?:\+\w+)?:///)(?!file:|:memory:)([^?]+)(.*)", place)
    return f"{file[1]}{Path(file[2]).absolute()}{file[3]}" if file else place


def absolute(place: str | None) -> str | None:
    """Return a place that means the same in every working folder."""
    if place is None:
        return None
    return tracking_uri(place) if _is_uri(place) else str(Path(place).absolute())


def check_place(place: str) -> None:
    """Check that a place is a tracking URI or may be a folder.

    Raises:
        UserError: it is a file, a URI without two slashes, or one of MLflow's former folders of files.
    """
    expected = "expected a folder, or a tracking URI such as http://HOST:PORT or sqlite:///FILE"
    if place.startswith("file:"):
        raise UserError(f"runner.mlflow: got '{place}', {expected}; MLflow no longer writes folders of files")
    if not _is_uri(place) and (re.match(r"[a-z0-9+]+:/", place) or Path(place).is_file()):
        raise UserError(f"runner.mlflow: got '{place}', {expected}")


def _is_uri(place: str) -> bool:
    return "://" in place or place == "databricks"


@contextmanager
def _quickly() -> Iterator[None]:
    """Give up soon where no server answers, and keep MLflow's log and its libraries' deprecations off the terminal."""
    given = {name: value for name, value in _quick.items() if name not in os.environ}
    os.environ.update(given)
    loggers = {name: logging.getLogger(name) for name in ("mlflow", "urllib3.connectionpool")}
    levels = {name: logger.level for name, logger in loggers.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mlflow  # noqa: F401 - it sets the level of its log

            for logger in loggers.values():
                logger.setLevel(logging.ERROR)
            yield
    finally:
        loggers["urllib3.connectionpool"].setLevel(levels["urllib3.connectionpool"])
        for name in given:
            os.environ.pop(name, None)


@contextmanager
def _created_once(uri: str) -> Iterator[None]:
    """Let one process at a time open a database file: two would both create its tables."""
    scheme, _, path = uri.partition(":///")
    if not scheme.startswith("sqlite") or not path:
        yield
        return
    file = Path(path.partition("?")[0])
    make_folder(file.parent)
    with locked(file.with_name(f".{file.name}.lock")):
        yield


def _opened(uri: str, experiment: str, folder: RunFolder) -> MlflowRun:
    from mlflow import MlflowClient
    from mlflow.entities import Param

    client = MlflowClient(tracking_uri=uri)
    record, config = folder.read_record(), folder.read_config()
    name, trial = f"{folder.path.parent.name}/{folder.path.name}", identity(record)
    place = _experiment(client, experiment, uri)
    found = client.search_runs([place], f"tags.`{_TRIAL}` = '{trial}'", max_results=1)
    if found:
        run = found[0].info.run_id
        client.update_run(run, status="RUNNING")
    else:
        run = client.create_run(place, run_name=name, tags={_TRIAL: trial}).info.run_id
    for key, value in _tags(folder, record).items():
        client.set_tag(run, key, value)
    parameters = [Param(key, str(value)[:_longest]) for key, value in {**settings(config), "seed": record["seed"]}.items()]
    for k in range(0, len(parameters), _batch):
        client.log_batch(run, params=parameters[k : k + _batch])
    return MlflowRun(client, run)


def _experiment(client: Any, name: str, uri: str) -> str:
    """Return the id of an experiment, and create it if it does not exist."""
    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage == "deleted":
        raise UserError(f"runner.mlflow_experiment: got '{name}', which was deleted in MLflow; restore it, or give a new name")
    if found is not None:
        return found.experiment_id
    artifacts = None
    if uri.startswith("sqlite:///"):  # otherwise they would lie in the working folder
        artifacts = (Path(uri.removeprefix("sqlite:///").partition("?")[0]).absolute().parent / "artifacts").as_uri()
    with suppress(Exception):  # another process may create it at the same time
        return client.create_experiment(name, artifact_location=artifacts)
    return client.get_experiment_by_name(name).experiment_id


def _tags(folder: RunFolder, record: Mapping[str, Any]) -> dict[str, str]:
    """Return tags that say what was trained, and where its record lies."""
    keys = ("dataset", "model", "seed", "group", "code", "data", "backend", "commit")
    tags = {f"seqmem.{key}": str(record[key]) for key in keys if record.get(key) is not None}
    return tags | {"seqmem.folder": str(folder.path.absolute())}


def _reason(error: Exception) -> str:
    """Return the first line of an error, without the advice and the SQL that follow."""
    first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if "Max retries exceeded" in first:
        return "no server answers there"
    return first.strip().rstrip(".")[:300]
