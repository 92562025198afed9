"""The tasks of the tables of memory: which trials belong to each, and where they are evaluated after training."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from benchmarks.entries import Entry
from seqmem import models
from seqmem.cli import choices
from seqmem.training.config import model_arguments

MODELS = ("legs", "lmu_plain", "lstm", "gru", "s4d", "lru", "s5", "mingru", "mamba", "slstm")
"""The models of make table-memory and make table-uea."""

PRESET = "memory_100k"
"""The preset of the table's models: 100,000 parameters between the embedding of tokens and the head."""


@dataclass(frozen=True)
class Condition:
    """An evaluation after training.

    Attributes:
        heading: of its column.
        length: the data set's argument.
        settings: further arguments of the data set.
    """

    heading: str
    length: int
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def key(self) -> str:
        """Column of the file."""
        return self.heading.replace(" ", "_")

    def command(self) -> list[str]:
        """Return the keys of ``seqmem evaluate`` after the trial."""
        return [f"lengths={self.length}", *(f"dataset.{name}={value}" for name, value in self.settings)]


@dataclass(frozen=True)
class Task:
    """A task of the table.

    Attributes:
        name: of the experiment below cfg/experiment, and of the file of its trials.
        title: in words.
        chance: accuracy of guessing; 0 if it differs by the data.
        chance_note: a remark on chance, appended to it.
        conditions: what is evaluated besides the test of the training.
        folder: of the experiment: memory or uea.
        preset: of the models.
        command: what trains them.
        whole: name of whole sequences, whose accuracy has columns of its own; empty for none.
    """

    name: str
    title: str
    chance: float = 0.0
    chance_note: str = ""
    conditions: tuple[Condition, ...] = ()
    folder: str = "memory"
    preset: str = PRESET
    command: str = "make table-memory"
    whole: str = ""

    @property
    def level(self) -> str:
        """Accuracy of guessing, in words; empty if it is not known."""
        return f"chance {self.chance:.3f}{self.chance_note}" if self.chance else ""

    def has(self, config: Mapping[str, Any]) -> bool:
        """Return whether a trial's config is that of the experiment with its model."""
        model = models.label(model_arguments(config))
        if config["model"].get("preset") != self.preset or model not in choices.names("model"):
            return False
        return _entry(f"{self.folder}/{self.name}", model).has(config)


def whole_key(key: str) -> str:
    """Return the column of the accuracy of whole sequences under a condition, or in the test."""
    return f"{key}_sequence_accuracy"


@cache
def _entry(experiment: str, model: str) -> Entry:
    return Entry(experiment, (f"model={model}",))


def _at(*lengths: int, **settings: Any) -> tuple[Condition, ...]:
    return tuple(Condition(f"at {length}", length, tuple(settings.items())) for length in lengths)


def _asked_once(name: str, title: str, chance: float, note: str = "") -> Task:
    return Task(name, title, chance, note, conditions=_at(40, 64, 128, 256, test_samples=512))


def _uea(name: str, problem: str, steps: int) -> Task:
    title = f"{problem}, {steps:,} steps"
    return Task(name, title, folder="uea", preset="params_100k", command="make table-uea")


MEMORY = (
    Task(
        "selective_copying",
        "selective copying, 8 tokens in 64 steps",
        1 / 14,
        conditions=_at(64, 128, 256),
    ),
    Task(
        "selective_copying_4096",
        "selective copying, 16 tokens in 4,096 steps",
        1 / 14,
        command="python train.py -m experiment=memory/selective_copying_4096 model=mamba",
    ),
    Task(
        "induction",
        "induction, trained at 64 steps",
        1 / 15,
        conditions=_at(64, 128, 256, 512, 1024),
    ),
    Task(
        "mqar",
        "associative recall of 16 keys in 256 steps",
        1 / 32,
        ", and 1 / keys among the sequence's values",
        (*_at(64, pairs=4), *_at(128, pairs=8)),
    ),
    _asked_once("parity", "parity, trained at 1 to 40 bits", 1 / 2),
    _asked_once("even_pairs", "even pairs, trained at 1 to 40 symbols", 1 / 2),
    _asked_once("cycle_navigation", "cycle navigation, trained at 1 to 40 moves", 1 / 5),
    _asked_once("modular_arithmetic", "arithmetic modulo 5, trained at 1 to 40 symbols", 1 / 5, ", more at short lengths"),
    *(
        Task(
            f"group_words_{group.lower()}",
            f"words of {group}, trained at 2 to 20 elements",
            (1 + 19 / 60) / 20,
            " (the first answer is the input)",
            _at(5, 10, 20, 40),
            whole="whole words",
        )
        for group in ("A5", "Z60")
    ),
    Task(
        "flip_flop",
        "flip-flop, 128 symbols, trained with p = 0.8",
        1 / 2,
        conditions=tuple(Condition(f"p {p}", 128, (("test_p", p), ("test_samples", 3000))) for p in (0.98, 0.1)),
    ),
)
"""The tasks of make table-memory, and one that takes weeks, in the order of the page."""

UEA = (
    _uea("eigenworms", "EigenWorms", 17_984),
    _uea("self_regulation_scp1", "SelfRegulationSCP1", 896),
    _uea("self_regulation_scp2", "SelfRegulationSCP2", 1_152),
    _uea("ethanol_concentration", "EthanolConcentration", 1_751),
    _uea("heartbeat", "Heartbeat", 405),
    _uea("motor_imagery", "MotorImagery", 3_000),
)
"""The tasks of make table-uea."""
