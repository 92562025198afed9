"""Figures and rows of boundaries: positions of the lines, boxes and characters."""

import sys

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from seqmem.errors import UserError
from seqmem.results.boundaries import plot_characters, plot_indicators, viz_char_boundaries
from seqmem.results.plots import check_picture, save_figure


def bands(axis):
    return [collection for collection in axis.collections if isinstance(collection, LineCollection)]


@pytest.mark.parametrize("layers", [1, 3])
def test_each_layer_has_a_band_and_a_colour_of_its_own(layers):
    random = np.random.default_rng(layers)
    truth, prediction = random.normal(size=(2, 20, 1))
    indicators = random.random((layers, 20)) > 0.5
    figure = plot_indicators(truth, prediction, indicators=indicators)
    [axis] = figure.axes
    np.testing.assert_array_equal([line.get_ydata() for line in axis.lines], [truth[:, 0], prediction[:, 0]])
    drawn = bands(axis)
    assert len(drawn) == layers
    for k, band in enumerate(drawn):
        segments = np.array(band.get_segments())
        np.testing.assert_array_equal(segments[:, :, 0], np.flatnonzero(indicators[k])[:, None].repeat(2, 1))
        np.testing.assert_allclose(segments[:, 0, 1], k / layers)
        np.testing.assert_allclose(segments[:, 1, 1], (k + 1) / layers)
        assert band.get_transform().transform((0, 1))[1] == pytest.approx(axis.transAxes.transform((0, 1))[1])
        assert band.get_alpha() == 0.3
    colors = {tuple(band.get_color()[0][:3]) for band in drawn} | {to_rgba(line.get_color())[:3] for line in axis.lines}
    assert len(colors) == layers + 2
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["truth", "prediction", *(f"layer {k + 1}" for k in range(layers))]


def test_lines_of_boundaries_leave_the_signals_scale_alone():
    truth = np.linspace(100, 101, 9)
    [axis] = plot_indicators(truth, truth, np.ones((2, 9))).axes
    low, high = axis.get_ylim()
    assert 99.9 < low < 100
    assert 101 < high < 101.1


def test_a_signal_of_several_channels_has_an_axis_for_each():
    truth, prediction = np.random.default_rng(0).normal(size=(2, 11, 3))
    axes = plot_indicators(truth, prediction, np.eye(2, 11)).axes
    assert len(axes) == 3
    for channel, axis in enumerate(axes):
        np.testing.assert_array_equal(axis.lines[0].get_ydata(), truth[:, channel])
        np.testing.assert_array_equal(axis.lines[1].get_ydata(), prediction[:, channel])
        assert [len(band.get_segments()) for band in bands(axis)] == [1, 1]


def test_a_figure_is_not_registered_with_pyplot_and_is_saved_whole(tmp_path):
    figure = plot_indicators(np.zeros(4), np.ones(4), np.zeros((3, 4)))  # without boundaries
    assert isinstance(figure, Figure)
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []
    for name in ("one.png", "one.pdf"):
        check_picture(tmp_path / name)
        save_figure(figure, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.pdf", "one.png"]
    with pytest.raises(UserError, match=r"picture: got .*one.xyz, expected a name that ends in one of: .*\.png"):
        check_picture(tmp_path / "one.xyz")
    with pytest.raises(UserError, match=r"picture: got .*, but there is no folder"):
        check_picture(tmp_path / "no" / "one.png")


INDICATORS = np.array([[1, 0, 1, 1, 0, 1], [0, 0.4, 0.6, 0, 0, 1], [0, 0, 0, 0, 0, 1]])


def test_rows_of_a_text_by_hand(capsys):
    viz_char_boundaries("abc de", "xyz  w", INDICATORS, row_len=4)
    assert capsys.readouterr().out == ("0000\n0010\n1011\nxyz \nabc \n\n01\n01\n01\n w\nde\n\n")
    viz_char_boundaries("ab" * 35, "cd" * 35, np.zeros((1, 70)))
    assert [len(line) for line in capsys.readouterr().out.splitlines()] == [60, 60, 60, 0, 10, 10, 10, 0]


def test_a_picture_of_a_text_has_a_box_for_each_boundary_and_a_letter_for_each_character():
    [axis] = plot_characters("abc de", "xyz  w", INDICATORS, row_len=4).axes
    letters = {(text.get_position()[0] - 0.5, text.get_position()[1] - 0.5): text.get_text() for text in axis.texts}
    assert "".join(letters[x, 4.0] for x in range(4)) + letters[0, 10.0] + letters[1, 10.0] == "abc de"
    assert "".join(letters[x, 3.0] for x in range(4)) + letters[0, 9.0] + letters[1, 9.0] == "xyz  w"
    boxes = {}
    for collection in axis.collections:
        for path in collection.get_paths():
            corner = path.get_extents()
            boxes.setdefault(int(corner.y0), []).append(int(corner.x0))
    assert boxes == {1: [2], 2: [0, 2, 3], 6: [1], 7: [1], 8: [1]}


def test_shapes_that_do_not_match_are_named():
    for function, arguments, message in [
        (
            plot_indicators,
            (np.zeros(4), np.zeros(5), np.zeros((1, 4))),
            r"truth of shape \(4,\) and prediction of shape \(5,\)",
        ),
        (plot_indicators, (np.zeros(4), np.zeros(4), np.zeros((4, 2))), r"indicators of shape \(4, 2\), expected \(L, 4\)"),
        (plot_indicators, (np.zeros(4), np.zeros(4), np.zeros(4)), r"indicators of shape \(4,\), expected \(L, 4\)"),
        (viz_char_boundaries, ("abc", "ab", np.zeros((1, 3))), "got 3 characters of truth and 2 of predictions"),
        (viz_char_boundaries, ("abc", "abc", np.zeros((1, 3)), 0), "got row_len=0"),
        (plot_characters, ("abc", "abc", np.zeros((2, 4))), r"expected \(L, 3\)"),
    ]:
        with pytest.raises(UserError, match=f"^{function.__name__}: .*{message}"):
            function(*arguments)
