"""Series of a user's own .ts file, the format of the UEA and UCR archives."""

from pathlib import Path

import numpy as np

from seqmem.errors import UserError
from seqmem.io.collection import Collection, Reading
from seqmem.io.files import read_bytes
from seqmem.io.ts_files import parse
from seqmem.io.values import is_number


def read_ts(path: Path, reading: Reading) -> Collection:
    """Read a .ts file, with class labels, values to predict (@targetLabel true) or neither.

    Raises:
        UserError: the file cannot be read, or a line is wrong; the message names it.
    """
    part = parse(path, path.name, read_bytes(path), classes_alone=False)
    lengths = np.array([len(series) for series in part.series], np.int64)
    targets = None
    given = [] if reading.labels_elsewhere else part.labels
    if reading.target == "value" and given:
        wrong = next((label for label in given if not is_number(label) and label != "?"), None)
        if wrong is not None:
            raise UserError(f"{path}: got the label '{wrong}', expected a number to predict (dataset.task=regression)")
        targets = np.array([np.nan if label == "?" else float(label) for label in given])[:, None]
    return Collection(
        path,
        [str(k) for k in range(len(part.series))],
        tuple(f"x{k}" for k in range(part.series[0].shape[1])),
        np.concatenate(part.series),
        np.cumsum(lengths) - lengths,
        lengths,
        times=None if part.times is None else np.concatenate([moments - moments[0] for moments in part.times]),
        origins=None if part.times is None else np.array([moments[0] for moments in part.times]),
        labels=[None if label == "?" else label for label in given] or None if reading.target == "class" else None,
        targets=targets,
        target_names=("target",) if targets is not None else (),
    )
