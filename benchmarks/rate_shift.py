"""The README's picture: accuracy under a different sampling rate, from the kept trials: ``python -m benchmarks.rate_shift``.

The accuracies that it shows are kept in the picture's metadata, so that a test notices when the trials have changed.
"""

import json
from pathlib import Path
from statistics import mean

from matplotlib import pyplot as plt
from PIL import Image

from benchmarks.output import RESULTS
from benchmarks.pages.papers import CHARACTERS

PICTURE = RESULTS / "character_trajectories" / "rate_shift.png"
TASKS = {"100 Hz to 200 Hz": "trained at 100 Hz, tested at 200 Hz", "200 Hz to 100 Hz": "trained at 200 Hz, tested at 100 Hz"}
MODELS = {"legs": "LegS", "gru": "GRU", "lstm": "LSTM", "mgu": "MGU", "lmu": "LMU"}
COLORS = ("#1b6ca8", "#8a96a3", "#a9b4be", "#c7cfd6", "#e0e4e8")
CHANCE = 1 / 20


def main() -> None:
    """Draw the picture."""
    draw(accuracies())


def accuracies() -> dict[str, dict[str, list[float]]]:
    """Return the test accuracy of each trial, by task and model."""
    names = ("CharacterTrajectories", "model")
    rows = {tuple(row.settings[name] for name in names): row for row in CHARACTERS.rows()}
    values = {key: sorted(row.values(CHARACTERS.metric)) for key, row in rows.items()}
    return {task: {model: [round(value, 4) for value in values[task, model]] for model in MODELS} for task in TASKS}


def draw(found: dict[str, dict[str, list[float]]], path: Path = PICTURE) -> None:
    """Draw a bar for the mean of each model's trials, and a point for each trial."""
    figure, axes = plt.subplots(figsize=(8, 3), dpi=120, layout="constrained")
    width = 0.8 / len(MODELS)
    for number, (model, label) in enumerate(MODELS.items()):
        places = [group + (number - (len(MODELS) - 1) / 2) * width for group in range(len(TASKS))]
        heights = [mean(found[task][model]) for task in TASKS]
        axes.bar(places, heights, width * 0.92, color=COLORS[number], label=label)
        for place, height, task in zip(places, heights, TASKS, strict=True):
            trials = found[task][model]
            axes.plot([place] * len(trials), trials, ".", color="black", markersize=3)
            text, top = f"{label}\n{height:.2f}", (place, max(height, *trials))
            axes.annotate(text, top, xytext=(0, 4), textcoords="offset points", ha="center", va="bottom", fontsize=8)
    axes.axhline(CHANCE, color="black", linewidth=0.7, linestyle=":")
    axes.set(xticks=range(len(TASKS)), xticklabels=TASKS.values(), ylim=(0, 1.12), ylabel="test accuracy")
    axes.set_title("CharacterTrajectories, 20 letters; dots: trials, dotted line: chance", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Description": json.dumps(found)})
    plt.close(figure)


def drawn(path: Path = PICTURE) -> dict[str, dict[str, list[float]]]:
    """Return the accuracies that a picture shows."""
    with Image.open(path) as picture:
        return json.loads(picture.info["Description"])


if __name__ == "__main__":
    main()
