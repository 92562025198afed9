"""A small table of what was understood of a user's files."""

from collections.abc import Mapping

import numpy as np

from seqmem.data.preparation import Preparation
from seqmem.data.segments import Segments
from seqmem.data.splits import Split
from seqmem.data.statistics import Statistics
from seqmem.io.collection import Collection

_shown = 8
_how = {
    "last": "filled with the previous value of the channel",
    "mean": "filled with the channel's mean",
    "mask": "filled with the previous value, and marked in a channel of their own",
    "refuse": "refused",
}


def summary(
    found: Collection,
    preparation: Preparation,
    classes: np.ndarray | None,
    parts: Mapping[Split, Segments],
    statistics: Mapping[Split, Statistics],
    notes: Mapping[str, str],
) -> str:
    """Return the table, a line for each fact.

    Args:
        found: the series.
        preparation: of their values.
        classes: (n,) the class of each series; None without classes.
        parts: the sequences of each split.
        statistics: of the steps of each split, each counted once.
        notes: further lines: how the series were split, and what is predicted.
    """
    steps = sum(each.steps for each in statistics.values())
    values = steps * len(found.channels)
    missing = values - int(sum(each.count.sum() for each in statistics.values()))
    constant = [name for name, same in zip(found.channels, statistics["train"].constant, strict=True) if same]
    lines = {
        **found.roles,
        "series": f"{len(found)}{'' if found.in_memory else ', read from the file as they are needed'}",
        "steps": _range(found.lengths),
        "channels": f"{len(found.channels)}: {_listed(found.channels)}"
        + (f"; constant in training: {_listed(constant)}" if constant else ""),
        "missing values": f"{missing} of {values} ({missing / max(values, 1):.1%}), {_how[preparation.missing]}"
        if missing
        else "none",
        **_targets(found, preparation, classes),
        **notes,
        "splits": ", ".join(f"{split} {len(part)}" for split, part in parts.items()) + _few(parts),
        "standardised": "by mean and standard deviation of the training split" if preparation.standardizes else "no",
    }
    width = max(map(len, lines))
    return "\n".join([f"{found.path}", *(f"  {name:<{width}}  {text}" for name, text in lines.items())])


def _few(parts: Mapping[Split, Segments]) -> str:
    """Return a note if so few series validate or test that one of them moves an accuracy by more than 3 %."""
    few = min(len(parts["validation"]), len(parts["test"])) < 30
    return "; few, so chance has a part in the best epoch and in the test" if few else ""


def _targets(found: Collection, preparation: Preparation, classes: np.ndarray | None) -> dict[str, str]:
    if preparation.class_names is not None and classes is not None:
        counts = np.bincount(classes, minlength=len(preparation.class_names)).tolist()
        names = [f"{name} {count}" for name, count in zip(preparation.class_names, counts, strict=True)]
        return {"classes": f"{len(names)}: {_listed(names, 12)}"}
    if found.targets is not None:
        spans = zip(found.target_names, found.targets.min(0), found.targets.max(0), strict=True)
        return {"values to predict": ", ".join(f"{name} from {low:g} to {high:g}" for name, low, high in spans)}
    return {}


def _range(lengths: np.ndarray) -> str:
    low, middle, high = int(lengths.min()), float(np.median(lengths)), int(lengths.max())
    return f"{low} in each series" if low == high else f"{low} to {high}, median {middle:g}"


def _listed(names: "tuple[str, ...] | list[str]", most: int = _shown) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
