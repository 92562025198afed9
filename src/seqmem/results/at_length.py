"""Rows of a report with their results at one length, on the same test sequences."""

import os
from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from seqmem.errors import UserError
from seqmem.results.aggregate import Trials
from seqmem.results.by_length import AtLength
from seqmem.results.chosen_rows import Rows
from seqmem.results.length_rows import counted_evaluations


def at_length(rows: Rows, length: int) -> Rows:
    """Return rows, by (data set, model), whose results are those at a length, on the data set ``NAME at LENGTH``.

    Trials that were not evaluated there count as not finished.

    Raises:
        UserError: no trial of a row was evaluated at this length, or rows of a data set were evaluated on different sequences.
    """
    every = {key: counted_evaluations(row) for key, row in rows.items()}
    for (dataset, model), row in rows.items():
        if row.finished and length not in every[dataset, model]:
            known = ", ".join(map(str, sorted(every[dataset, model])))
            raise UserError(
                f"--length: got {length}, at which no trial of {model} on {dataset} was evaluated; seqmem evaluate FOLDER "
                f"lengths={length} does that; known lengths: {known or 'none'}"
            )
    found = {key: evaluations.get(length, {}) for key, evaluations in every.items()}
    for first, second in combinations(rows, 2):
        if first[0] == second[0] and found[first] and found[second]:
            _check_same_sequences(length, (rows[first], rows[second]), (found[first], found[second]))
    return {
        (f"{dataset} at {length}", model): _only(row, found[dataset, model], length) for (dataset, model), row in rows.items()
    }


def _only(row: Trials, found: Mapping[Path, AtLength], length: int) -> Trials:
    runs = []
    for run in row.runs:
        if run.folder.path in found:
            value = found[run.folder.path].value
            runs.append(replace(run, record={**run.record, "result": {f"test/{row.metric}": value}}))
        elif run.finished:
            runs.append(replace(run, status="not evaluated", reason=f"not at {length}"))
        else:
            runs.append(run)
    return replace(row, dataset=f"{row.dataset} at {length}", runs=runs)


def _check_same_sequences(length: int, rows: tuple[Trials, Trials], found: tuple[Mapping[Path, AtLength], ...]) -> None:
    """Check that two rows were evaluated on equally many sequences, and for each shared seed on the same ones.

    Raises:
        UserError: with the command that evaluates both so.
    """
    names = [row.model for row in rows]
    first, second = (next(iter(each.values())).sequences for each in found)
    more = max((each for of_row in found for each in of_row.values()), key=lambda each: each.sequences)
    command = f"lengths={length} {_counting(more)}"
    if first != second:
        fewer = _folder([*found[first > second]])
        raise UserError(
            f"--length {length}: got {first} test sequences of {rows[0].dataset} for {names[0]} and {second} for {names[1]}, "
            f"expected equal numbers; evaluate again: seqmem evaluate {fewer} {command}"
        )
    reads = [
        {run.record["seed"]: read for run in row.finished if run.folder.path in each and (read := each[run.folder.path].read)}
        for row, each in zip(rows, found, strict=True)
    ]
    different = [seed for seed in reads[0] if seed in reads[1] and reads[0][seed] != reads[1][seed]]
    if different:
        seed, folder = different[0], _folder([*found[0], *found[1]])
        one, other = (each[seed] for each in reads)
        name = next(name for name in (*one, *other) if one.get(name) != other.get(name))
        raise UserError(
            f"--length {length}: got {first} test sequences of {rows[0].dataset} for both {names[0]} and {names[1]}, but for "
            f"seed {seed} with different checksums of {name} ({str(one.get(name))[:12]} and {str(other.get(name))[:12]}), "
            f"expected the same sequences; evaluate again: seqmem evaluate {folder} {command} again=true"
        )


def _counting(evaluation: AtLength) -> str:
    """Return the setting that gives as many sequences again: of a text, each row of a batch is one."""
    known = (evaluation.record.get("config") or {}).get("dataset")
    if known and "test_samples" not in known:
        return f"train.eval_batch_size={evaluation.rows}"
    return f"dataset.test_samples={evaluation.sequences}"


def _folder(trials: list[Path]) -> Path:
    return Path(os.path.commonpath(trials))
