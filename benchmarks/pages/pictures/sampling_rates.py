"""Picture of HiPPO's table 2: accuracy of each model under a shift of the sampling rate or of the times."""

from collections.abc import Callable

from matplotlib.figure import Figure

from benchmarks.pages.results import CHARACTERS

_COLOURS = {"legs": "C3", "gru": "C0", "lstm": "C2", "lmu": "0.55"}
_TASKS = {
    "100 Hz to 200 Hz": "100 to 200 Hz",
    "200 Hz to 100 Hz": "200 to 100 Hz",
    "missing values, upsample": "times doubled",
    "missing values, downsample": "times halved",
}


def sampling_rates(figure: Figure) -> None:
    """Draw the mean of each model as a bar, and each trial as a point; LegS by timestamps where times are given."""
    axes = figure.subplots()
    width = 0.8 / len(_COLOURS)
    for row in CHARACTERS.rows():
        model = "legs" if row.settings["model"] == "tlsi" else row.settings["model"]
        place = list(_TASKS).index(row.settings["CharacterTrajectories"]) - 0.4 + (list(_COLOURS).index(model) + 0.5) * width
        values = row.values(CHARACTERS.metric)
        axes.bar(place, sum(values) / len(values), width * 0.9, color=_COLOURS[model])
        axes.plot([place] * len(values), values, "o", color="black", markersize=2.5)
    for model, colour in _COLOURS.items():
        axes.bar(0, 0, color=colour, label="legs, tlsi" if model == "legs" else model)
    axes.set_xticks(range(len(_TASKS)), list(_TASKS.values()))
    axes.set(ylabel="test accuracy", ylim=(0, 1), title="trained at one rate, tested at another: pen strokes, 20 classes")
    axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))


PICTURES: dict[str, Callable[[Figure], None]] = {"sampling_rates": sampling_rates}
