"""The model card of a finished trial: Markdown with the YAML header that model hubs read."""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from seqmem.results.machines import machine_name
from seqmem.results.table import number

_TASKS = {"language_modelling": "text-generation", "forecasting": "time-series-forecasting"}
"""Names of tasks at the hub, where they differ."""

_FOLDERS = re.compile(
    r"""(?:((?:^|[=\[])\s*)[A-Za-z]:/|((?:^|[=\[,{(]|:\s)\s*|\w+://)/|(:)/(?!/))"""  # with a drive, without, after a key
    r"""(?:(?:\\.|[^/,\]}'"\\])*/)*"""
)
"""The folders of an absolute path, and what stands before it."""

_QUOTED = re.compile(
    r"""(?P<quote>['"])(?:[A-Za-z]:|\w+://)?/(?:(?:\\.|(?!(?P=quote))[^/\\])*/)*"""
    r"""(?P<name>(?:\\.|(?!(?P=quote))[^/\\])*)(?P=quote)"""
)
"""An absolute path in quotes, in which other quotes, the same after a backslash, commas and brackets may stand."""

_PRIVATE = ("runner.wandb", "runner.mlflow", "runner.address=", "hydra.sweeper.storage=")
"""Beginnings of overrides that no reader of a card needs."""

_LOADED = """\
```python
import seqmem

model = seqmem.load("FOLDER")           # this folder; a torch module in evaluation mode
outputs = model.predict({call:<16}# {inputs} -> {outputs}
```
"""


def card(record: Mapping[str, Any], data: Mapping[str, Any], spec: Mapping[str, Any], licence: str) -> str:
    """Return the text of the card.

    Args:
        record: of the finished trial.
        data: description of its data.
        spec: of the data set.
        licence: its identifier, such as ``mit``.
    """
    title = f"{record['model']} on {record['dataset']}"
    header = yaml.safe_dump(_header(record, spec, licence), sort_keys=False, allow_unicode=True)
    about = f"A model of the package seqmem for {spec['task'].replace('_', ' ')}"
    parts = [
        f"---\n{header}---\n\n# {title}",
        f"{about}: {record['parameters']:,} parameters.",
        _LOADED.format(call=_call(spec), inputs=_inputs(spec), outputs=_outputs(spec)),
        "## Results\n\n" + _results(record),
        "## Training\n\n" + _training(record),
        "## Data\n\n" + _data(data),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def shared_command(command: Sequence[str]) -> list[str]:
    """Return a command line without the folders of the machine: an absolute path becomes its last part.

    Addresses of trackers and of a search's database, which may have passwords, are left out. Names of columns stay, which may
    begin with a slash.
    """
    return [_without_folders(argument) for argument in command if not argument.lstrip("+").startswith(_PRIVATE)]


def names_columns(key: str) -> bool:
    """Return whether a key of a config such as ``id_column`` holds names of columns, and no path."""
    return key.endswith(("_column", "_columns"))


def _without_folders(argument: str) -> str:
    key, equals, _ = argument.partition("=")
    if equals and names_columns(key):
        return argument
    if argument.startswith("/"):
        return argument.rpartition("/")[2]
    return _FOLDERS.sub(r"\1\2\3", _QUOTED.sub(r"\g<quote>\g<name>\g<quote>", argument))


def _header(record: Mapping[str, Any], spec: Mapping[str, Any], licence: str) -> dict[str, Any]:
    task = _TASKS.get(spec["task"], spec["task"])
    metrics = [
        {"type": record["metric"], "value": value, "name": f"{split} {_label(record)}"}
        for split, value in _metrics(record).items()
    ]
    result = {
        "task": {"type": task},
        "dataset": {"name": record["dataset"], "type": record["dataset"]},
        "metrics": metrics,
    }
    return {
        "license": licence,
        "library_name": "seqmem",
        "tags": ["sequence-modelling", "long-sequences", task, record["model"], record["dataset"]],
        "metrics": [record["metric"]],
        "model-index": [{"name": f"{record['model']} on {record['dataset']}", "results": [result]}],
    }


def _label(record: Mapping[str, Any]) -> str:
    """Return the metric's name for readers; records of earlier versions have none."""
    return str(record.get("metric_label", record["metric"]))


def _metrics(record: Mapping[str, Any]) -> dict[str, float]:
    """Return the metric of the test and of the validation split."""
    return {split: record["result"][f"{key}/{record['metric']}"] for split, key in (("test", "test"), ("validation", "val"))}


def _results(record: Mapping[str, Any]) -> str:
    rows = "\n".join(f"| {split} | {number(value)} |" for split, value in _metrics(record).items())
    smoke = "\n\nThis is a smoke test of a few batches, and no result." if record.get("smoke_test") else ""
    return (
        f"| split | {_label(record)} |\n|---|---|\n{rows}\n\nOne trial, of the seed {record['seed']}. {_chosen(record)}{smoke}"
    )


def _chosen(record: Mapping[str, Any]) -> str:
    """Return the sentence about the epoch of the weights, and how often the test split was used."""
    if not record["epochs"]:
        return "The weights are the initial ones, without training; the test split was used once."
    chosen = f"Validation chose epoch {record['best_epoch'] + 1} of {record['epochs']}"
    if record.get("result_last"):
        return f"{chosen}; the test split was used for it, and for the last epoch."
    return f"{chosen}; the test split was used once."


def _training(record: Mapping[str, Any]) -> str:
    device = str(record.get("backend", "")).partition(" ")[0]
    versions = ", ".join(f"{name} {version}" for name, version in record.get("versions", {}).items())
    rows = {
        "commit": record.get("commit") or "not known",
        "code (checksum)": record.get("code"),
        "settings (checksum)": record.get("group"),
        "machine": machine_name(record, device) or "not known",
        "backend": record.get("backend"),
        "time": f"{record['seconds']:.1f} s",
        "peak memory": f"{record['peak_memory_mib']:.1f} MiB",
        "started": record.get("started"),
        "versions": versions,
    }
    program, *arguments = record.get("command") or [""]
    words = program.split() if program.startswith("seqmem ") else [program]  # "seqmem train" is one element
    command = shlex.join(shared_command([*words, *arguments]))
    return f"```bash\n{command}\n```\n\n{_table(rows)}\n\n`config.json` has every setting."


def _data(data: Mapping[str, Any]) -> str:
    sums = {f"{split} ({data['sizes'][split]:,} sequences)": value for split, value in (data.get("sha256") or {}).items()}
    files = dict(data.get("files") or {})
    return (
        f"Checksums (SHA-256) of the data set `{data['name']}`. `preprocessor_config.json` has its splits and how inputs are "
        f"prepared.\n\n{_table(sums | files)}"
    )


def _table(rows: Mapping[str, Any]) -> str:
    lines = "\n".join(f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items())
    return f"| | |\n|---|---|\n{lines}"


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def _call(spec: Mapping[str, Any]) -> str:
    return "inputs, times=times)  " if spec.get("times") else "inputs)"


def _inputs(spec: Mapping[str, Any]) -> str:
    inputs = f"(B, T) tokens below {spec['input_size']}" if spec["tokens"] else f"(B, T, {spec['input_size']})"
    return f"{inputs} and times (B, T)" if spec.get("times") else inputs


def _outputs(spec: Mapping[str, Any]) -> str:
    steps = {None: "(B, T, ", 0: "(B, "}.get(spec["output_steps"], f"(B, {spec['output_steps']}, ")
    return f"{steps}{spec['output_size']})"
