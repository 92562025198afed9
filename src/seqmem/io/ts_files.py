"""Problems of the UEA and UCR archives: their files, series, times and labels.

A problem NAME is two text files, ``NAME/NAME_TRAIN.ts`` and ``NAME/NAME_TEST.ts``. Lines that begin with ``@`` are the header,
up to ``@data``; each line after it is a case. Its channels and, last, its label are separated by colons, the values of a
channel by commas; ``?`` is a missing value. With ``@timeStamps true`` a value is a pair (time, value). Lines that begin with
``#`` or ``%`` are comments.
"""

import hashlib
import os
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seqmem.errors import UserError, suggestion
from seqmem.io.download import DownloadError, download, missing_files
from seqmem.io.files import decoded, listing
from seqmem.io.values import is_number, shortened
from seqmem.io.zips import DAMAGE, check_size

MIRRORS = (
    "https://timeseriesclassification.com/aeon-toolkit/",
    "https://github.com/sktime/sktime-datasets/raw/main/TSC/",
)
"""URLs of folders with ``NAME.zip`` for every problem; the archive publishes no checksums."""

PARTS = ("TRAIN", "TEST")

_switches = ("@timestamps", "@univariate", "@classlabel", "@targetlabel", "@missing", "@equallength")
_pair = re.compile(r"\(([^(),]*),([^(),]*)\)")
_between_channels = re.compile(r":(?![^()]*\))")  # a time may have a colon


@dataclass(frozen=True)
class Part:
    """Content of one file.

    Attributes:
        series: for each case (T, C) float64; T may differ; NaN for a missing value.
        labels: the class of each case as in the file; empty for a file without labels.
        times: for each case (T,) float64 the increasing times of its steps; None for a file without timestamps.
        file: the file's name for provenance.
        sha256: checksum of the file, in hexadecimal.
    """

    series: list[np.ndarray]
    labels: list[str]
    times: list[np.ndarray] | None
    file: str
    sha256: str


def read_problem(data_set: str, problem: str, data_dir: str | Path) -> tuple[Part, Part]:
    """Read the training and the test part of a problem.

    The files are searched in ``data_dir/NAME/`` and ``data_dir``, unpacked or in ``NAME.zip``, then among those in sktime. They
    are downloaded to the first folder if they are in none.

    Args:
        data_set: name of the data set, for messages.
        problem: NAME.
        data_dir: folder with one folder for each problem.

    Raises:
        UserError: there is no such problem; or a file is missing and cannot be downloaded, cannot be read, or is not a
            classification problem.
    """
    contents = _contents(data_set, problem, Path(os.path.expanduser(data_dir)))
    train, test = (parse(place, name, content) for place, name, content in contents)
    names, where = [f"{problem}_{part}.ts" for part in PARTS], f"{contents[0][0].parent}"
    channels = train.series[0].shape[1], test.series[0].shape[1]
    if channels[0] != channels[1]:
        raise UserError(
            f"{where}: got {channels[0]} channels in {names[0]} and {channels[1]} in {names[1]}, expected equal numbers"
        )
    if (train.times is None) != (test.times is None):
        stamped = names[train.times is None]
        raise UserError(f"{where}: got timestamps in {stamped} alone, expected @timeStamps true in both files or in none")
    return train, test


def _contents(data_set: str, problem: str, data_dir: Path) -> list[tuple[Path, str, bytes]]:
    """For each part the path for messages, the name for provenance, and the content of its file."""
    names = [f"{problem}_{part}.ts" for part in PARTS]
    for folder in (data_dir / problem, data_dir):
        if all(os.path.isfile(folder / name) for name in names):
            return [(folder / name, f"{problem}/{name}", _bytes(folder / name)) for name in names]
        if os.path.isfile(archive := folder / f"{problem}.zip") and not any(os.path.exists(folder / name) for name in names):
            return [(archive / name, f"{problem}/{name}", _member(archive, name)) for name in names]
    folder, prefix = _fetched(data_set, problem, data_dir / problem, names)
    return [(folder / name, f"{prefix}{problem}/{name}", _bytes(folder / name)) for name in names]


def _fetched(data_set: str, problem: str, own: Path, names: list[str]) -> tuple[Path, str]:
    """The folder of the files in sktime or of the downloaded files, and the prefix of their names in the provenance."""
    lacking = [name for name in names if not os.path.isfile(own / name)]

    def missing(reason: str) -> UserError:
        return missing_files(data_set, lacking, own, f"{problem}/", reason)

    if len(lacking) < len(names):
        raise missing("one file alone is not downloaded, since the archive has changed its files over time")

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
        raise UserError(
            f"dataset.problem: there is no {problem!r} in the UEA and UCR archives, and a problem of your own needs "
            f"{', '.join(names)} in {own} ({listing(own)}){hint}"
        )
    try:
        download(own, {f"{problem}.zip": None}, MIRRORS)
    except DownloadError as error:
        raise missing(f"the download failed ({error})") from None
    lacking = [name for name in names if not os.path.isfile(own / name)]
    if lacking:
        raise missing(f"the downloaded {problem}.zip has no such file")
    return own, ""


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None


def _member(archive: Path, name: str) -> bytes:
    try:
        with zipfile.ZipFile(archive) as members:
            check_size(members)
            return members.read(name)
    except (OSError, *DAMAGE) as error:
        raise UserError(f"cannot read {name} in {archive} ({error}); remove the archive to have it downloaded again") from None


def parse(path: Path, name: str, content: bytes, classes_alone: bool = True) -> Part:
    """Parse a .ts file.

    Args:
        path: for messages.
        name: of the file, for provenance.
        content: of the file.
        classes_alone: refuse a file without class labels; otherwise the labels may be values to predict, or absent.

    Raises:
        UserError: it is not such a file, or a line is wrong; the message names it.
    """
    lines = _numbered_lines(path, content)
    header, data = _divided(path, lines)
    stamped, labelled = _checked_header(path, header, classes_alone)
    series: list[np.ndarray] = []
    times: list[np.ndarray] = []
    labels: list[str] = []
    for number, line in data:
        where = f"{path}, line {number}"
        parts = [part.strip() for part in _between_channels.split(line)] if stamped else line.split(":")
        channels, label = (parts[:-1], parts[-1]) if labelled else (parts, "")
        if not channels or (labelled and not label.strip()):
            raise UserError(f"{where}: got {shortened(line)}, expected the channels and a label, separated by colons")
        if series and len(channels) != series[0].shape[1]:
            raise UserError(f"{where}: got {len(channels)} channels, expected {series[0].shape[1]} as in the first case")
        case, moments = _stamped(channels, where) if stamped else _unstamped(channels, where)
        largest = float(np.nanmax(np.abs(case), initial=0.0))
        if largest > float(np.finfo(np.float32).max):
            raise UserError(f"{where}: got a value of size {largest:g}, expected at most 3.4e38, the largest of float32")
        series.append(case)
        times.append(moments)
        labels.append(label.strip())
    if not series:
        raise UserError(f"{path}: got no line after @data, expected at least one series")
    return Part(series, labels if labelled else [], times if stamped else None, name, hashlib.sha256(content).hexdigest())


def _numbered_lines(path: Path, content: bytes) -> list[tuple[int, str]]:
    """The lines that are neither empty nor comments, with their numbers from 1."""
    text = decoded(path, content, otherwise="latin-1")
    lines = ((number, line.strip()) for number, line in enumerate(text.split("\n"), 1))
    return [(number, line) for number, line in lines if line and not line.startswith(("#", "%"))]


def _divided(path: Path, lines: list[tuple[int, str]]) -> tuple[list[tuple[int, list[str]]], list[tuple[int, str]]]:
    """The header's tags, each with its line's number, and the lines after @data."""
    for place, (_, line) in enumerate(lines):
        if line.lower() == "@data":
            header = [(number, line.split()) for number, line in lines[:place] if line.startswith("@")]
            return header, lines[place + 1 :]
    raise UserError(f"{path}: got no line @data, expected a .ts file of the UEA and UCR archives")


def _checked_header(path: Path, header: list[tuple[int, list[str]]], classes_alone: bool) -> tuple[bool, bool]:
    """Return whether the data have timestamps, and labels; refuse the header of another kind of problem."""
    switches: dict[str, bool] = {}
    for number, (tag, *words) in header:
        if tag.lower() in _switches:
            value = words[0].lower() if words else ""
            if value not in ("true", "false"):
                raise UserError(
                    f"{path}, line {number}: got '{' '.join([tag, *words[:1]])}', expected {tag} true or {tag} false"
                )
            switches[tag.lower()] = value == "true"
    stamped = switches.get("@timestamps", False)
    if not classes_alone:
        return stamped, switches.get("@targetlabel", False) or switches.get("@classlabel", False)
    if switches.get("@targetlabel"):
        raise UserError(f"{path} is a regression problem (@targetLabel), expected a classification problem (@classLabel)")
    if not switches.get("@classlabel"):
        found = "false" if "@classlabel" in switches else "is missing"
        raise UserError(f"{path} has no class labels (@classLabel {found}), expected a classification problem")
    return stamped, True


def _unstamped(channels: list[str], where: str) -> tuple[np.ndarray, np.ndarray]:
    """A case (T, C) with T of the longest channel, at least 1, and the numbers of its steps."""
    columns = [_numbers(channel.split(","), where) if channel.strip() else np.empty(0) for channel in channels]
    case = np.full((max(1, *(len(column) for column in columns)), len(columns)), np.nan)
    for index, column in enumerate(columns):
        case[: len(column), index] = column
    return case, np.arange(len(case), dtype=np.float64)


def _stamped(channels: list[str], where: str) -> tuple[np.ndarray, np.ndarray]:
    """A case (T, C) at all times (T,) of any of its channels; a channel without a value at a time has NaN."""
    pairs = [_pairs(channel, where) for channel in channels]
    times = np.unique(np.concatenate([moments for moments, _ in pairs]))
    if len(times) == 0:
        return np.full((1, len(channels)), np.nan), np.zeros(1)
    case = np.full((len(times), len(channels)), np.nan)
    for index, (moments, values) in enumerate(pairs):
        case[np.searchsorted(times, moments), index] = values
    return case, times


def _pairs(channel: str, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Times and values of a channel "(0,1.5),(2,?)"."""
    if _pair.sub("", channel).strip(", "):
        raise UserError(f"{where}: got {shortened(channel)}, expected pairs (time,value), separated by commas")
    found = _pair.findall(channel)
    texts = [time.strip() for time, _ in found]
    try:
        times = np.array([float(time) for time in texts])
    except ValueError:
        wrong = next(time for time in texts if not is_number(time))
        raise UserError(f"{where}: got the timestamp '{wrong}', expected a number, such as seconds from the start") from None
    if not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        step = int(np.argmax(~np.isfinite(times))) if not np.isfinite(times).all() else int(np.argmax(np.diff(times) <= 0)) + 1
        raise UserError(f"{where}: got the timestamp '{texts[step]}' at step {step}, expected finite and increasing times")
    return times, _numbers([value for _, value in found], where)


def _numbers(cells: list[str], where: str) -> np.ndarray:
    """Values (n,) float64; NaN for a missing value and for one that is not finite."""
    try:
        values = np.array([float(cell) for cell in cells])
    except ValueError:
        wrong = next((cell for cell in cells if cell.strip() != "?" and not is_number(cell)), None)
        if wrong is not None:
            raise UserError(f"{where}: got '{shortened(wrong.strip())}', expected a number, or ? for a missing value") from None
        values = np.array([np.nan if cell.strip() == "?" else float(cell) for cell in cells])
    return np.where(np.isfinite(values), values, np.nan)


def filled(series: np.ndarray) -> np.ndarray:
    """Replace each missing value of a series (T, C) by the previous value of its channel, else the next one, else 0."""
    if not np.isnan(series).any():
        return series
    # Imported here because it takes a second, and listing the data sets must be fast.
    import pandas as pd

    return pd.DataFrame(series).ffill().bfill().fillna(0.0).to_numpy()
