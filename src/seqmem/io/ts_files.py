"""Problems of the UEA and UCR archives: their files, series and labels.

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
"""URLs of folders with ``NAME.zip`` for every problem; the archive publishes no checksums."""


@dataclass(frozen=True)
class Part:
    """Content of one file.

    Attributes:
        series: for each case (T, C) float64; T may differ; NaN for a missing value.
        labels: the class of each case as in the file, in lower case.
        file: the file's name for provenance.
        sha256: checksum of the file, in hexadecimal.
    """

    series: list[np.ndarray]
    labels: list[str]
    file: str
    sha256: str


def read_problem(data_set: str, problem: str, data_dir: str | Path, known: Mapping[str, str]) -> tuple[Part, Part]:
    """Read the training and the test part of a problem.

    The files are searched in ``data_dir/NAME/``, then among those in sktime, and are downloaded to the first folder if they are
    in neither.

    Args:
        data_set: name of the data set, for messages.
        problem: NAME.
        data_dir: folder with one folder for each problem.
        known: size and checksum of each file by its name, for the message if it is missing.

    Raises:
        UserError: there is no such problem; or a file is missing and cannot be downloaded, cannot be read, or is not a
            classification problem.
    """
    own = Path(os.path.expanduser(data_dir)) / problem
    names = [f"{problem}_{part}.ts" for part in ("TRAIN", "TEST")]
    folder, prefix = _find(data_set, problem, own, names, known)
    train, test = (_read(folder / name, f"{prefix}{problem}/{name}") for name in names)
    channels = train.series[0].shape[1], test.series[0].shape[1]
    if channels[0] != channels[1]:
        raise UserError(
            f"{folder}: got {channels[0]} channels in {names[0]} and {channels[1]} in {names[1]}, expected equal numbers"
        )
    return train, test


def _find(data_set: str, problem: str, own: Path, names: list[str], known: Mapping[str, str]) -> tuple[Path, str]:
    """The folder of the files, and the prefix of their names in the provenance."""
    missing = [name for name in names if not os.path.isfile(own / name)]
    if not missing:
        return own, ""
    files = ", ".join(f"{name} ({known[name]})" if name in known else name for name in missing)
    remedy = f"put the files there, or set dataset.data_dir to the folder that has {problem}/"
    if len(missing) < len(names):
        # The archive has changed its files over time, so a file from a different version may not fit the other.
        raise UserError(f"{data_set}: {own} has no {files}; {remedy}")

    # Imported here because it takes seconds, and listing the data sets must be fast.
    import sktime
    from sktime.datasets import tsc_dataset_names

    bundled = Path(sktime.__file__).parent / "datasets" / "data"
    if all(os.path.isfile(bundled / problem / name) for name in names):
        return bundled / problem, f"sktime {sktime.__version__} "

    listed = {*tsc_dataset_names.univariate, *tsc_dataset_names.multivariate}
    if problem not in listed:
        local = {folder.name for folder in own.parent.glob("*") if (folder / f"{folder.name}_TRAIN.ts").is_file()}
        near = suggestion(problem, sorted(listed | local))
        hint = near if near.endswith("?") else "; sktime includes JapaneseVowels, for example"
        raise UserError(f"dataset.problem: there is no {problem!r} in the UEA and UCR archives, and {own} has no {files}{hint}")
    try:
        download(own, {f"{problem}.zip": None}, MIRRORS)
    except DownloadError as error:
        raise UserError(f"{data_set}: {own} has no {files}, and the download failed ({error}); {remedy}") from None
    absent = [name for name in names if not os.path.isfile(own / name)]
    if absent:
        raise UserError(f"{data_set}: the downloaded {problem}.zip has no {', '.join(absent)}; {remedy}")
    return own, ""


def _read(path: Path, name: str) -> Part:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    encoding = _encoding(content)
    _check_header(path, content.decode(encoding))

    # Imported here because it takes seconds, and listing the data sets must be fast.
    from sktime.datasets import load_from_tsfile

    try:
        frame, labels = load_from_tsfile(str(path), encoding=encoding)
        # A channel may have no value at all, or end before the others of its case.
        series = [_columns([cell.to_numpy(dtype=np.float64) for cell in case]) for case in frame.to_numpy()]
    except Exception as error:
        # sktime's reader has no error class of its own: a damaged file raises exceptions of many kinds.
        raise UserError(f"{path} is not a .ts file that sktime can read: {error}") from None
    if len(series) != len(labels) or not series:
        raise UserError(
            f"{path}: got {len(series)} series and {len(labels)} labels, expected at least one series and a label for each"
        )
    largest = max(float(np.nanmax(np.abs(case), initial=0.0)) for case in series)
    if largest > float(np.finfo(np.float32).max):
        raise UserError(f"{path}: got a value of size {largest:g}, expected at most 3.4e38, the largest of float32")
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
    """Channels of any lengths as columns: (T, C) with T of the longest, at least 1; NaN for a value that is not finite."""
    series = np.full((max(1, *(len(channel) for channel in channels)), len(channels)), np.nan)
    for index, channel in enumerate(channels):
        series[: len(channel), index] = np.where(np.isfinite(channel), channel, np.nan)
    return series


def filled(series: np.ndarray) -> np.ndarray:
    """Replace each missing value of a series (T, C) by the previous value of its channel, else the next one, else 0."""
    if not np.isnan(series).any():
        return series
    # Imported here because it takes a second, and listing the data sets must be fast.
    import pandas as pd

    return pd.DataFrame(series).ffill().bfill().fillna(0.0).to_numpy()
