"""The tables of the papers' models, from the files of :mod:`benchmarks.paper_tables`."""

from collections.abc import Callable
from functools import partial

from benchmarks import paper_tables
from benchmarks.pages.published import model, value
from benchmarks.pages.trials import Column, Trial, Trials

PARAMETERS = Column("parameters", "parameters", digits=0, spread=False)
BEST_EPOCH = Column("best epoch", "best_epoch", digits=0, spread=False)
EPOCHS = Column("epochs", "epochs", digits=0, spread=False)
TEST = Column("test accuracy", "test")

_SETTINGS = {
    "ct_100to200": ("100 Hz to 200 Hz", "every second step is kept in training, all in the test"),
    "ct_200to100": ("200 Hz to 100 Hz", "all steps are kept in training, every second in the test"),
    "ct_upsample": ("missing values, upsample", "none is missing: the times of training are halved"),
    "ct_downsample": ("missing values, downsample", "none is missing: the times of the test are halved"),
    "ct_dropped_upsample": ("points dropped, upsample", "a random half of the steps is dropped in training"),
    "ct_dropped_downsample": ("points dropped, downsample", "a random half of the steps is dropped in the test"),
}
"""Names of the settings of table 2, and what they do."""

_ROWS_OF_TABLE_2 = {"legs (tlsi where times are given)": "HiPPO-LegS", "gru": "GRU", "lstm": "LSTM", "lmu": "LMU", "": "none"}
"""Rows of the paper's table 2 by their names in the file of published values."""


def _task_and_model(trial: Trial) -> tuple[str, str]:
    """Return the parts of the name of an experiment such as hippo/ct_100to200_lmu_plain."""
    name = trial["experiment"].partition("/")[2]
    return name.removesuffix(f"_{trial['model']}"), trial["model"]


def _characters(trial: Trial) -> dict[str, str]:
    task, name = _task_and_model(trial)
    title, what = _SETTINGS[task]
    return {
        "CharacterTrajectories": title,
        "steps and times": what,
        "model": name,
        "row of the paper": _ROWS_OF_TABLE_2[model("HiPPO", "2", trial)],
    }


CHARACTERS = Trials(
    page="hippo",
    file=paper_tables.TABLE_2.file,
    settings=_characters,
    metric=Column("test accuracy, best validation epoch", "test"),
    command="`make table-hippo-2`",
    published=Column("published", "", spread=False, of=partial(value, "HiPPO", "2")),
    others=[Column("test accuracy, epoch 100", "test_last_epoch"), PARAMETERS],
    task="CharacterTrajectories, {CharacterTrajectories}, test accuracy",
    level="chance 0.050",
    waiting=paper_tables.TABLE_2.waiting,
)


_LARGE = {
    "hippo/short_pmnist_legs": "512 units, stopped early",
    "hippo/recipe_pmnist_legs": "512 units, this project's recipe",
}
"""Rows of table 1 with other sizes than the paper."""


def _permuted(trial: Trial) -> dict[str, str]:
    small = {"scale=small": "128 units, 10 epochs", "scale=small model.cell_args.dt=0.01": "128 units, 10 epochs, dt 0.01"}
    size = small.get(trial["changes"]) or _LARGE.get(trial["experiment"], "512 units, 50 epochs")
    return {"permuted MNIST": size, "row of the paper": model("HiPPO", "1", trial), "model": trial["model"]}


PERMUTED = Trials(
    page="hippo",
    file=paper_tables.TABLE_1.file,
    settings=_permuted,
    metric=Column("validation accuracy", "validation", digits=4),
    command="`make table-hippo-1 TABLE_FLAGS=scale=small` (and `python train.py experiment=NAME` for the other sizes)",
    others=[
        Column("test accuracy", "test", digits=4),
        Column("published, 512 units, 50 epochs", "", digits=4, spread=False, of=partial(value, "HiPPO", "1")),
        EPOCHS,
        PARAMETERS,
        Column("seconds", "seconds", digits=0, spread=False, timed=True),
    ],
    task="permuted MNIST, {permuted MNIST}, validation accuracy",
    level="chance 0.100",
    waiting=paper_tables.TABLE_1.waiting,
)


def _memory(trial: Trial) -> str:
    return trial["experiment"].rpartition("_")[2]


APPROXIMATION = Trials(
    page="hippo",
    file=paper_tables.TABLE_3.file,
    settings=lambda trial: {"function approximation": "10^6 steps in 256 numbers", "model": _memory(trial)},
    metric=Column("mean squared error of four signals", "test", digits=4),
    command="`make table-hippo-3`",
    published=Column("published", "", spread=False, of=partial(value, "HiPPO", "3")),
    task="function approximation, {function approximation}, mean squared error",
    level="0.250 of zero at every step",
    waiting=paper_tables.TABLE_3.waiting,
)

_LONG = {
    "copying": "copying, 200 blanks, accuracy",
    "adding": "adding, 400 steps, mean squared error",
    "imdb": "IMDB, first 400 words, accuracy",
}


_LEVELS = dict(zip(_LONG.values(), ("chance 0.125", "0.167, the variance of the targets", "chance 0.500"), strict=True))


def _long_range(trial: Trial) -> dict[str, str]:
    task, name = _task_and_model(trial)
    return {"task": _LONG[task], "model": name}


LONG_RANGE = Trials(
    page="hippo",
    file=paper_tables.LONG_RANGE.file,
    settings=_long_range,
    metric=Column("test", "test", digits=4),
    command="`make table-hippo-appendix`",
    others=[
        Column("validation", "validation", digits=4),
        Column("published", "", spread=False, of=partial(value, "HiPPO", "appendix")),
        EPOCHS,
        PARAMETERS,
    ],
    task="{task}",
    level=lambda settings: _LEVELS[settings["task"]],
    waiting=paper_tables.LONG_RANGE.waiting,
)

MACKEY_GLASS = Trials(
    page="lmu",
    file=paper_tables.MACKEY_GLASS.file,
    settings=lambda trial: {"Mackey-Glass": "15 steps ahead", "model": trial["model"]},
    metric=Column("test, normalised RMSE", "test", digits=4),
    command="`make table-lmu`",
    published=Column("published", "", digits=4, spread=False, of=partial(value, "LMU", "Mackey-Glass, corrected")),
    others=[Column("test, epoch 500", "test_last_epoch", digits=4), PARAMETERS],
    task="Mackey-Glass, {Mackey-Glass}, normalised RMSE",
    level="1.62 without a change",
    waiting=paper_tables.MACKEY_GLASS.waiting,
)

_HMLSTM = {
    "hmlstm/text8_hmlstm": ("text8 prefix, bits per character", "3 x 128"),
    "hmlstm/text8_lstm": ("text8 prefix, bits per character", "346"),
    "hmlstm/text8_lstm_3_layers": ("text8 prefix, bits per character", "3 x 159"),
    "hmlstm/sinusoids_hmlstm": ("sinusoids, 3 steps ahead, mse", "2 x 30, soft"),
    "hmlstm/sinusoids_lstm": ("sinusoids, 3 steps ahead, mse", "69"),
    "hmlstm/sinusoids_1_step_hmlstm": ("sinusoids, 1 step ahead, mse", "2 x 30, soft"),
    "hmlstm/sinusoids_1_step_lstm": ("sinusoids, 1 step ahead, mse", "69"),
}


def _segments(trial: Trial) -> dict[str, str]:
    data, units = _HMLSTM[trial["experiment"]]
    return {"data": data, "model": trial["model"], "units": units}


def _level_of_segments(settings: dict[str, str]) -> str:
    is_text = settings["data"].startswith("text8")
    return "4.755 of 27 equally likely characters" if is_text else "0.250, the variance of the noise"


SEGMENTS = Trials(
    page="hmlstm",
    file=paper_tables.HMLSTM.file,
    settings=_segments,
    metric=Column("test", "test", digits=4),
    command="`make table-hmlstm`",
    others=[
        Column("validation", "validation", digits=4),
        BEST_EPOCH,
        PARAMETERS,
        Column("boundary rate, layer 1", "boundary_rate_1", digits=2, spread=False),
        Column("layer 2", "boundary_rate_2", digits=2, spread=False),
        Column("layer 3", "boundary_rate_3", digits=2, spread=False),
    ],
    task="{data}, units {units}",
    level=_level_of_segments,
    waiting=paper_tables.HMLSTM.waiting,
)


def _blanks(trial: Trial) -> dict[str, str]:
    changes = dict(change.split("=") for change in trial["changes"].split())
    return {
        "blanks": f"{int(changes['dataset.length']):,}",
        "model": trial["model"],
        "learning rate": changes.get("train.lr", "0.01"),
    }


COPYING = Trials(
    page="igloo",
    file=paper_tables.IGLOO.file,
    settings=_blanks,
    metric=TEST,
    command=(
        "`make table-igloo` (and for 10,000 blanks "
        "`python train.py -m experiment=igloo/copy_memory_table dataset.length=10000 runner.ntrials=1`, "
        "and the same with `model=lstm,gru train.lr=0.001`)"
    ),
    others=[
        Column("best epoch of 10", "best_epoch", digits=0, spread=False),
        Column("peak memory, MiB", "peak_memory_mib", digits=0, spread=False, timed=True),
        PARAMETERS,
    ],
    task="copy memory, {blanks} blanks, learning rate {learning rate}, test accuracy",
    level="chance 0.125",
    waiting=paper_tables.IGLOO.waiting,
)

IGLOO_MNIST = Trials(
    page="igloo",
    file=paper_tables.IGLOO_MNIST.file,
    settings=lambda trial: {"data": "permuted MNIST", "model": trial["model"]},
    metric=Column("test accuracy", "test", digits=4),
    command="`make table-igloo-mnist`",
    others=[
        Column("published, of unknown size", "", digits=4, spread=False, of=partial(value, "IGLOO", "abstract")),
        Column("validation accuracy", "validation", digits=4),
        EPOCHS,
        PARAMETERS,
        Column("seconds", "seconds", digits=0, spread=False, timed=True),
    ],
    task="{data}, test accuracy",
    level="chance 0.100",
    waiting=paper_tables.IGLOO_MNIST.waiting,
)

PAPERS = [CHARACTERS, PERMUTED, APPROXIMATION, LONG_RANGE, MACKEY_GLASS, SEGMENTS, COPYING, IGLOO_MNIST]
"""The tables, in the order in which the pages of models show them."""

PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "hippo": {
        "characters": CHARACTERS.markdown,
        "permuted": PERMUTED.markdown,
        "signals": APPROXIMATION.markdown,
        "long_range": LONG_RANGE.markdown,
    },
    "hmlstm": {"segments": SEGMENTS.markdown},
    "igloo": {"copying": COPYING.markdown, "permuted": IGLOO_MNIST.markdown},
    "lmu": {"mackey_glass": MACKEY_GLASS.markdown},
}
"""The generated parts of each page."""
