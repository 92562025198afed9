"""The tables of the papers: which experiments are the rows of each, in the order of its page."""

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.entries import Entry


@dataclass(frozen=True)
class Table:
    """A file of trials.

    Attributes:
        file: below benchmarks/results.
        entries: its rows.
        extras: further keys of the results of the test, which have a column each.
    """

    file: str
    entries: tuple[Entry, ...]
    extras: tuple[str, ...] = ()

    def waiting(self, trials: list[dict[str, str]]) -> list[str]:
        """Return the names of the experiments, with changes, that none of the trials belongs to."""
        found = {(trial["experiment"], trial["changes"]) for trial in trials}
        rows = ((entry.experiment, " ".join(entry.changes)) for entry in self.entries)
        return [" ".join(row).strip() for row in rows if row not in found]


def _entries(folder: str, tasks: tuple[str, ...], models: tuple[str, ...], *changes: str) -> Iterator[Entry]:
    for task in tasks:
        for model in models:
            yield Entry(f"{folder}/{task}_{model}", changes)


BASELINES = ("mgu", "gru", "lstm", "lmu", "lmu_plain")
"""Models of table 2 beside HiPPO's own: its code's GRU, torch's, LSTM, its code's LMU, and the LMU of its own paper."""

PERMUTED = ("legs", "lagt", "legt_theta200", "legt_theta20", "lmu", "exprnn", "gru", "mgu", "rand", "rnn")
"""Models of table 1."""

TABLE_1 = Table(
    "hippo/permuted_mnist.csv",
    (
        *_entries("hippo", ("pmnist",), PERMUTED, "scale=small"),
        Entry("hippo/pmnist_lagt", ("scale=small", "model.cell_args.dt=0.01")),
        *_entries("hippo", ("pmnist",), PERMUTED),
        Entry("hippo/short_pmnist_legs"),
        Entry("hippo/recipe_pmnist_legs"),
    ),
)

TABLE_2 = Table(
    "character_trajectories/trials.csv",
    (
        *_entries("hippo", ("ct_100to200", "ct_200to100"), ("legs", *BASELINES)),
        *_entries(
            "hippo", ("ct_upsample", "ct_downsample", "ct_dropped_upsample", "ct_dropped_downsample"), ("tlsi", *BASELINES)
        ),
    ),
)

TABLE_3 = Table(
    "function_approximation/trials.csv", tuple(_entries("hippo", ("function_approximation",), ("legs", "lmu", "lstm")))
)

LONG_RANGE = Table(
    "hippo/long_range.csv",
    (
        *_entries("hippo", ("copying", "adding"), ("legs", "legt", "lmu", "lstm", "exprnn", "rnn")),
        *_entries("hippo", ("imdb",), ("legs", "lmu", "lstm", "exprnn", "rnn")),
    ),
)

MACKEY_GLASS = Table(
    "lmu/mackey_glass.csv", tuple(_entries("lmu", ("mackey_glass",), ("lmu_plain", "lstm", "lmu_plain_lstm", "legs")))
)

HMLSTM = Table(
    "hmlstm/trials.csv",
    (
        *_entries("hmlstm", ("text8",), ("hmlstm", "lstm", "lstm_3_layers")),
        *_entries("hmlstm", ("sinusoids", "sinusoids_1_step"), ("hmlstm", "lstm")),
    ),
    extras=("boundary_rate_1", "boundary_rate_2", "boundary_rate_3"),
)

COPY_MODELS = ("igloo", "legs", "lstm", "gru", "tcn")
IGLOO = Table(
    "igloo/trials.csv",
    tuple(
        Entry("igloo/copy_memory_table", (f"dataset.length={length}", f"model={model}", *rate))
        for length, slow in ((100, ()), (1000, ("lstm", "gru")), (10000, ("lstm", "gru")))
        for model in COPY_MODELS
        for rate in ((), ("train.lr=0.001",))
        if not rate or model in slow
    ),
)

IGLOO_MNIST = Table("igloo/permuted_mnist.csv", (Entry("igloo/pmnist"),))

TABLES = (TABLE_1, TABLE_2, TABLE_3, LONG_RANGE, MACKEY_GLASS, HMLSTM, IGLOO, IGLOO_MNIST)
"""All tables of this module."""
