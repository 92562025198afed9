"""Picture of HiPPO's table 2: accuracy of each model under a shift of the sampling rate or of the times."""

from collections.abc import Callable

from matplotlib.figure import Figure

from benchmarks.pages.papers import CHARACTERS
from benchmarks.pages.trials import Row

_COLOURS = {"legs": "C3", "gru": "C0", "mgu": "C9", "lstm": "C2", "lmu": "0.55", "lmu_plain": "0.75"}
_TASKS = {
    "100 Hz to 200 Hz": "100 to 200 Hz",
    "200 Hz to 100 Hz": "200 to 100 Hz",
    "missing values, upsample": "times doubled",
    "missing values, downsample": "times halved",
    "points dropped, upsample": "half dropped\nin training",
    "points dropped, downsample": "half dropped\nin the test",
}


def sampling_rates(figure: Figure) -> None:
    """Draw the mean of each model as a bar, and each trial as a point; LegS by timestamps where times are given."""
    axes = figure.subplots()
    rows = [(_model(row), row.settings["CharacterTrajectories"], row.values(CHARACTERS.metric)) for row in CHARACTERS.rows()]
    models = [model for model in _COLOURS if any(model == found for found, *_ in rows)]
    tasks = [task for task in _TASKS if any(task == found for _, found, _ in rows)]
    width = 0.8 / len(models)
    for model, task, values in rows:
        place = tasks.index(task) - 0.4 + (models.index(model) + 0.5) * width
        axes.bar(place, sum(values) / len(values), width * 0.9, color=_COLOURS[model])
        axes.plot([place] * len(values), values, "o", color="black", markersize=2.5)
    for model in models:
        axes.bar(0, 0, color=_COLOURS[model], label="legs, tlsi" if model == "legs" else model)
    axes.set_xticks(range(len(tasks)), [_TASKS[task] for task in tasks])
    axes.set(ylabel="test accuracy", ylim=(0, 1), title="trained at one rate, tested at another: pen strokes, 20 classes")
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))


def _model(row: Row) -> str:
    return "legs" if row.settings["model"] == "tlsi" else row.settings["model"]


PICTURES: dict[str, Callable[[Figure], None]] = {"sampling_rates": sampling_rates}
