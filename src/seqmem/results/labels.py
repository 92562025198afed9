"""What rows of a table are called: data set and model, with the settings that tell each from its namesakes."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Subject:
    """What the trials of a row have in common.

    Attributes:
        dataset: the data set's name.
        model: the model's name.
        settings: the config, flat, as :func:`seqmem.results.record.settings` gives it; None where it could not be read.
        overrides: of the command line; they stand in for settings that are not known.
        version: ``code=FINGERPRINT`` or ``commit=HASH``.
        group: the settings' digest.
        data: a checksum of the data; empty where it is not known.
    """

    dataset: str
    model: str
    settings: dict[str, Any] | None
    overrides: Sequence[str]
    version: str
    group: str
    data: str = ""


def varying(settings: Iterable[dict[str, Any] | None]) -> list[str]:
    """The keys that do not have one value in all of the ``settings`` that are known, in order of appearance."""
    known = [each for each in settings if each is not None]
    values: dict[str, set[str]] = {}
    counts: dict[str, int] = {}
    for each in known:
        for key, value in each.items():
            values.setdefault(key, set()).add(repr(value))
            counts[key] = counts.get(key, 0) + 1
    return [key for key in values if len(values[key]) > 1 or counts[key] < len(known)]


def label(subjects: Sequence[Subject]) -> list[tuple[str, str]]:
    """(data set, model) of each, no two equal.

    Settings of the data set that differ between data sets of one name stand with the data set, others that differ between
    models of one name on the same data stand with the model. Data, version and the settings' digest are told only where all
    else is equal and they differ.
    """
    datasets = _named(
        [subject.dataset for subject in subjects],
        [subject.settings for subject in subjects],
        [subject.dataset for subject in subjects],
        lambda key: key.startswith("dataset."),
        "dataset.",
    )
    models = _named(
        [subject.model for subject in subjects],
        [subject.settings for subject in subjects],
        [(dataset, subject.model) for dataset, subject in zip(datasets, subjects, strict=True)],
        lambda key: not key.startswith("dataset."),
    )
    labels = list(zip(datasets, models, strict=True))
    for tell in (_overrides, _data, _version, _group):
        told = list(map(tell, subjects))
        ways: dict[tuple[str, str], set[str]] = {}
        for place, words in zip(labels, told, strict=True):
            ways.setdefault(place, set()).add(", ".join(words))
        labels = [
            (dataset, _with(model, words)) if len(ways[dataset, model]) > 1 else (dataset, model)
            for (dataset, model), words in zip(labels, told, strict=True)
        ]
    return labels


def short_version(version: str) -> str:
    """The first seven characters of a commit or fingerprint, and whether there were changes that are not in it."""
    return version[:7] + "-dirty" * version.endswith("-dirty")


def _overrides(subject: Subject) -> list[str]:
    return list(subject.overrides) if subject.settings is None else []


def _data(subject: Subject) -> list[str]:
    return [f"data={subject.data[:7] or 'unknown'}"]


def _version(subject: Subject) -> list[str]:
    key, _, value = subject.version.partition("=")
    return [f"{key}={short_version(value)}"]


def _group(subject: Subject) -> list[str]:
    return [f"config={subject.group[:7]}"]


def _named(
    names: Sequence[str],
    settings: Sequence[dict[str, Any] | None],
    kin: Sequence[Hashable],
    wanted: Callable[[str], bool],
    prefix: str = "",
) -> list[str]:
    """Each name with those wanted settings in brackets that vary among its kin."""
    families: dict[Hashable, list[dict[str, Any] | None]] = {}
    for family, own in zip(kin, settings, strict=True):
        families.setdefault(family, []).append(own)
    differing = {family: [key for key in varying(members) if wanted(key)] for family, members in families.items()}
    return [
        _with(name, [f"{key.removeprefix(prefix)}={own[key]}" for key in differing[family] if key in own] if own else [])
        for name, own, family in zip(names, settings, kin, strict=True)
    ]


def _with(name: str, parts: Sequence[str]) -> str:
    if not parts:
        return name
    told = f"{name[:-1]}, " if name.endswith(")") else f"{name} ("
    return f"{told}{', '.join(parts)})"
