"""Problems of the UEA and UCR archives: where their files are found, and the series and labels in them.

A problem NAME is two text files, ``NAME/NAME_TRAIN.ts`` and ``NAME/NAME_TEST.ts``, which sktime reads.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seqmem.errors import UserError, suggestion
from seqmem.io.download import DownloadError, download

MIRRORS = (
    "https://timeseriesclassification.com/aeon-toolkit/",
    "https://github.com/sktime/sktime-datasets/raw/main/TSC/",
)
"""Folders of the web that hold ``NAME.zip`` for every problem; the archive publishes no checksums."""


@dataclass(frozen=True)
class Part:
    """What one file holds.

    Attributes:
        series: for each case (T, C) float64, T differing between cases; NaN where a value is missing.
        labels: the class of each case as it is written in the file, in lower case.
        file: the file's name for a record.
        sha256: of the file, in hexadecimal.
    """

    series: list[np.ndarray]
    labels: list[str]
    file: str
    sha256: str


def read_problem(data_set: str, problem: str, data_dir: str | Path, known: Mapping[str, str]) -> tuple[Part, Part]:
    """Read the training and the test part of a problem.

    The files are looked for in ``data_dir/NAME/``, then among those that come with sktime, and are downloaded to the first
    place if they are in neither.

    Args:
        data_set: the name of the data set, for messages.
        problem: NAME.
        data_dir: the folder that holds one folder for each problem.
        known: what is known of each file, its size and checksum say, by its name; for the message if it is not there.

    Raises:
        UserError: there is no such problem, a file is missing and cannot be downloaded, cannot be read, or holds no
            classification problem.
    """
    own = Path(os.path.expanduser(data_dir)) / problem
    names = [f"{problem}_{part}.ts" for part in ("TRAIN", "TEST")]
    folder, prefix = _find(data_set, problem, own, names, known)
    train, test = (_read(folder / name, f"{prefix}{problem}/{name}") for name in names)
    channels = train.series[0].shape[1], test.series[0].shape[1]
    if channels[0] != channels[1]:
        raise UserError(
            f"{folder} holds {channels[0]} channels in {names[0]} and {channels[1]} in {names[1]}, expected as many"
        )
    return train, test


def _find(data_set: str, problem: str, own: Path, names: list[str], known: Mapping[str, str]) -> tuple[Path, str]:
    """The folder that holds the files, and what a record puts before their names."""
    missing = [name for name in names if not os.path.isfile(own / name)]
    if not missing:
        return own, ""
    wanted = ", ".join(f"{name} ({known[name]})" if name in known else name for name in missing)
    where = f"put the files there, or give dataset.data_dir the folder that holds {problem}/"
    if len(missing) < len(names):
        # The archive has changed its files over time, so a half of another origin would not fit.
        raise UserError(f"{data_set}: {own} lacks {wanted}; {where}")

    # Imported here because it takes seconds, and listing the data sets must not.
    import sktime
    from sktime.datasets import tsc_dataset_names

    bundled = Path(sktime.__file__).parent / "datasets" / "data"
    if all(os.path.isfile(bundled / problem / name) for name in names):
        return bundled / problem, f"sktime {sktime.__version__} "

    listed = {*tsc_dataset_names.univariate, *tsc_dataset_names.multivariate}
    if problem not in listed:
        local = {folder.name for folder in own.parent.glob("*") if (folder / f"{folder.name}_TRAIN.ts").is_file()}
        near = suggestion(problem, sorted(listed | local))
        hint = near if near.endswith("?") else "; JapaneseVowels, for one, comes with sktime"
        raise UserError(f"dataset.problem: there is no {problem!r} in the UEA and UCR archives, and {own} lacks {wanted}{hint}")
    try:
        download(own, {f"{problem}.zip": None}, MIRRORS)
    except DownloadError as error:
        raise UserError(f"{data_set}: {own} lacks {wanted}; the download failed ({error}); {where}") from None
    absent = [name for name in names if not os.path.isfile(own / name)]
    if absent:
        raise UserError(
            f"{data_set}: {own} lacks {', '.join(absent)}, which the downloaded {problem}.zip did not hold; {where}"
        )
    return own, ""


def _read(path: Path, name: str) -> Part:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    encoding = _encoding(content)
    _check_header(path, content.decode(encoding))

    # Imported here because it takes seconds, and listing the data sets must not.
    from sktime.datasets import load_from_tsfile

    try:
        frame, labels = load_from_tsfile(str(path), encoding=encoding)
        # A channel may have no value at all, or end before the others of its case.
        series = [_columns([cell.to_numpy(dtype=np.float64) for cell in case]) for case in frame.to_numpy()]
    except Exception as error:
        # sktime's reader has no error class of its own: a damaged file ends in whatever its parser stumbled over.
        raise UserError(f"{path} is no .ts file that sktime can read: {error}") from None
    if len(series) != len(labels) or not series:
        raise UserError(
            f"{path} holds {len(series)} series and {len(labels)} labels, expected at least one series and as many labels"
        )
    largest = max(float(np.nanmax(np.abs(case), initial=0.0)) for case in series)
    if largest > float(np.finfo(np.float32).max):
        raise UserError(f"{path} holds a value of size {largest:g}, expected at most 3.4e38, the largest that float32 has")
    return Part(series, [str(label) for label in labels], name, hashlib.sha256(content).hexdigest())


def _encoding(content: bytes) -> str:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8-sig"


def _check_header(path: Path, text: str) -> None:
    header = [line.split() for line in text.lower().partition("@data")[0].splitlines() if line.startswith("@")]
    tags = {words[0]: words[1:] for words in header}
    if "@targetlabel" in tags:
        raise UserError(f"{path} is a regression problem (@targetLabel), expected a classification problem (@classLabel)")
    if tags.get("@classlabel", [])[:1] == ["false"]:
        raise UserError(f"{path} has no class labels (@classLabel false), expected a classification problem")
    if tags.get("@timestamps", [])[:1] == ["true"]:
        raise UserError(f"{path} has time stamps (@timeStamps true), expected evenly spaced series")


def _columns(channels: list[np.ndarray]) -> np.ndarray:
    """Channels of any lengths side by side: (T, C) with T of the longest, at least 1; NaN where there is no finite value."""
    series = np.full((max(1, *(len(channel) for channel in channels)), len(channels)), np.nan)
    for index, channel in enumerate(channels):
        series[: len(channel), index] = np.where(np.isfinite(channel), channel, np.nan)
    return series


def filled(series: np.ndarray) -> np.ndarray:
    """A series (T, C) in which a missing value is the last one before it, or else the first one after it, or else 0."""
    if not np.isnan(series).any():
        return series
    # Imported here because it takes a second, and listing the data sets must not.
    import pandas as pd

    return pd.DataFrame(series).ffill().bfill().fillna(0.0).to_numpy()
