"""Figures that a notebook shows as pictures."""

from io import BytesIO

from matplotlib import figure


class Figure(figure.Figure):
    """A matplotlib figure that is not registered with pyplot and that Jupyter shows.

    Without pyplot's backend for notebooks, Jupyter prints a plain figure as ``<Figure size 1200x400 with 1 Axes>``.
    """

    def _repr_png_(self) -> bytes:
        picture = BytesIO()
        self.savefig(picture, format="png")
        return picture.getvalue()
