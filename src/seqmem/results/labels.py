"""Labels of a table's rows: data set and model, with the settings that distinguish equal names."""

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

SMOKE = "smoke test"
"""Mark of smoke tests after the name of the model."""
SMOKE_NOTE = "smoke test: one epoch of a few batches, whose numbers are not results"

_key = re.compile(r"(?<=\(|\s)[\w.]+\.(\w+)(?==)")


@dataclass(frozen=True)
class Subject:
    """Common properties of the trials of a row.

    Attributes:
        dataset: name of the data set.
        model: name of the model.
        settings: the flat config of :func:`seqmem.results.record.settings`; None if it could not be read.
        overrides: overrides of the command line, which replace unknown settings in the label.
        version: ``code=FINGERPRINT`` or ``commit=HASH``.
        group: digest of the settings.
        data: checksum of the data; empty if it is not known.
        backend: device kind and path of the operators; empty if they are not known.
    """

    dataset: str
    model: str
    settings: dict[str, Any] | None
    overrides: Sequence[str]
    version: str
    group: str
    data: str = ""
    backend: str = ""


def varying(settings: Iterable[dict[str, Any] | None]) -> list[str]:
    """Return the keys that differ between the known ``settings`` or are missing in some, in order of appearance."""
    known = [each for each in settings if each is not None]
    values: dict[str, set[str]] = {}
    counts: dict[str, int] = {}
    for each in known:
        for key, value in each.items():
            values.setdefault(key, set()).add(repr(value))
            counts[key] = counts.get(key, 0) + 1
    return [key for key in values if len(values[key]) > 1 or counts[key] < len(known)]


def label(subjects: Sequence[Subject]) -> list[tuple[str, str]]:
    """Return (data set, model) for each subject, all different.

    Settings of the data set that differ between data sets of equal name are added to the data set, and the data's checksum if
    several are known for one of them. Other settings that differ between models of equal name on the same data are added to the
    model. Data, backend, version and the settings' digest are added to it only if everything else is equal and they differ.
    """
    datasets = _named(
        [subject.dataset for subject in subjects],
        [subject.settings for subject in subjects],
        [subject.dataset for subject in subjects],
        lambda key: key.startswith("dataset."),
        "dataset.",
    )
    checksums: dict[str, set[str]] = {}
    for name, subject in zip(datasets, subjects, strict=True):
        checksums.setdefault(name, set()).update({subject.data} - {""})
    datasets = [
        _with(name, _data(subject)) if len(checksums[name]) > 1 else name
        for name, subject in zip(datasets, subjects, strict=True)
    ]
    models = _named(
        [subject.model for subject in subjects],
        [subject.settings for subject in subjects],
        [(dataset, subject.model) for dataset, subject in zip(datasets, subjects, strict=True)],
        lambda key: not key.startswith("dataset."),
    )
    labels = list(zip(datasets, models, strict=True))
    for parts_of in (_overrides, _data, _backend, _version, _group):
        parts = list(map(parts_of, subjects))
        variants: dict[tuple[str, str], set[str]] = {}
        for each, words in zip(labels, parts, strict=True):
            variants.setdefault(each, set()).add(", ".join(words))
        labels = [
            (dataset, _with(model, words)) if len(variants[dataset, model]) > 1 else (dataset, model)
            for (dataset, model), words in zip(labels, parts, strict=True)
        ]
    return labels


def shortened(labels: Sequence[str]) -> list[str]:
    """Return labels for narrow places: keys without their sections where no other key ends alike, and no brackets.

    >>> shortened(["legs (model.cell_args.hidden_size=32)", "lstm"])
    ['legs, hidden_size=32', 'lstm']
    """
    full = {found[0] for label in labels for found in _key.finditer(label)}
    ends = [key.rpartition(".")[2] for key in full]

    def short(found: re.Match[str]) -> str:
        return found[1] if ends.count(found[1]) == 1 else found[0]

    return [_without_brackets(_key.sub(short, label)) for label in labels]


def _without_brackets(label: str) -> str:
    name, bracket, settings = label.partition(" (")
    return f"{name}, {settings[:-1]}" if bracket and label.endswith(")") else label


def short_version(version: str) -> str:
    """Return the first seven characters of a commit or fingerprint, with its ``-dirty`` if it has one."""
    return version[:7] + "-dirty" * version.endswith("-dirty")


def _overrides(subject: Subject) -> list[str]:
    return list(subject.overrides) if subject.settings is None else []


def _data(subject: Subject) -> list[str]:
    return [f"data={subject.data[:7] or 'unknown'}"]


def _version(subject: Subject) -> list[str]:
    key, _, value = subject.version.partition("=")
    return [f"{key}={short_version(value)}"]


def _backend(subject: Subject) -> list[str]:
    return [subject.backend or "unknown device"]


def _group(subject: Subject) -> list[str]:
    return [f"config={subject.group[:7]}"]


def _named(
    names: Sequence[str],
    settings: Sequence[dict[str, Any] | None],
    groups: Sequence[Hashable],
    is_shown: Callable[[str], bool],
    prefix: str = "",
) -> list[str]:
    """Each name with those of its settings in brackets that vary within its group and may be shown."""
    members: dict[Hashable, list[dict[str, Any] | None]] = {}
    for group, own in zip(groups, settings, strict=True):
        members.setdefault(group, []).append(own)
    differing = {group: [key for key in varying(found) if is_shown(key)] for group, found in members.items()}
    return [
        _with(name, [f"{key.removeprefix(prefix)}={own[key]}" for key in differing[group] if key in own] if own else [])
        for name, own, group in zip(names, settings, groups, strict=True)
    ]


def _with(name: str, parts: Sequence[str]) -> str:
    if not parts:
        return name
    start = f"{name[:-1]}, " if name.endswith(")") else f"{name} ("
    return f"{start}{', '.join(parts)})"
