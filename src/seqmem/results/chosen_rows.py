"""Rows of a report that a user names: by the model, or by model and data set."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from seqmem.errors import UserError, meant, suggestion
from seqmem.results.aggregate import Trials
from seqmem.results.labels import SMOKE, shortened

Rows = dict[tuple[str, str], Trials]
"""Rows of a report by (data set, model)."""


def chosen(groups: Sequence[Trials], names: Sequence[str] = ()) -> tuple[list[str], Rows]:
    """Return the models to compare, and their rows.

    Args:
        groups: all rows of the report.
        names: of the rows, each a model as the report names it, or ``MODEL on DATASET``, which leaves out other data sets.
            Short labels of pictures count, too, and models without their settings where one row has them. Empty for all rows.

    Raises:
        UserError: an unknown name, fewer than two rows, or rows that have no data set in common.
    """
    rows = {(group.dataset, group.model): group for group in groups}
    found = [_found(name, rows) for name in names] or [("", model) for model in dict.fromkeys(model for _, model in rows)]
    models = [model for _, model in found]
    if len(models) < 2:
        raise UserError(f"--rows: got {_listed(models)}, expected at least two rows to compare")
    repeated = [model for model in models if models.count(model) > 1]
    if repeated:
        raise UserError(f"--rows: got {repeated[0]} twice, expected different rows")
    datasets = list(dict.fromkeys(dataset for dataset, _ in found if dataset))
    if len(datasets) > 1:
        raise UserError(f"--rows: got rows on {' and on '.join(datasets)}, expected rows on the same data set")
    kept = {key: row for key, row in rows.items() if key[1] in models and key[0] in (datasets or [key[0]])}
    counts = [dataset for dataset, _ in kept]
    if all(counts.count(dataset) == 1 for dataset in counts):
        places = "; ".join(
            f"{model} is on {_listed(dataset for dataset, each in rows if each == model)}" for model in models[:5]
        )
        raise UserError(f"--rows: got {_listed(models[:5])}, expected two rows on the same data set: {places}")
    return models, kept


def _found(name: str, rows: Rows) -> tuple[str, str]:
    """Return the data set, empty for all of them, and the model that a name stands for."""
    models = list(dict.fromkeys(model for _, model in rows))
    labels = {model: ("", model) for model in models} | {f"{model} on {dataset}": (dataset, model) for dataset, model in rows}
    short = {label: ("", model) for label, model in zip(shortened(models), models, strict=True)}
    names = [model.partition(" (")[0] for model in models]
    bare = {each: ("", model) for each, model in zip(names, models, strict=True) if names.count(each) == 1}
    known = bare | short | labels
    if name in known:
        return known[name]
    longer = [label for label in labels if name and label.lower().startswith(name.lower())]
    near = sorted(longer or get_close_matches(name, labels, n=3), key=lambda label: SMOKE in label)
    raise UserError(f"--rows: got {name}, expected a row of the report{meant(near) if near else suggestion(name, models)}")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
