"""Charts of results: what is drawn, read back from the picture."""

from __future__ import annotations

import numpy as np

from encoscope.evaluation.charts import BarRow, draw_bars
from encoscope.metrics import Interval
from encoscope.plots import palette


def area(image, color) -> int:
    return int((np.asarray(image) == color).all(2).sum())


def test_bars_are_as_long_as_their_values_and_gaps_are_left_where_there_are_none():
    first, second = palette(2)
    rows = [BarRow("a", {"ours": 0.4, "theirs": None}), BarRow("b", {"ours": Interval(0.0, 0.0, 0.0), "theirs": 0.8})]
    picture = draw_bars(rows, "share", limits=(0, 1))
    assert 1.8 < area(picture, second) / area(picture, first) < 2.2  # but for the legend
    longer = draw_bars([rows[0], BarRow("b", {"ours": Interval(0.4, 0.3, 0.5), "theirs": 0.8})], "share", limits=(0, 1))
    assert 1.7 < area(longer, first) / area(picture, first) < 2.2  # but for the interval across the second bar


def test_chance_is_marked_and_no_rows_are_an_empty_chart():
    row = BarRow("a", {"ours": 0.4})
    assert draw_bars([row], "AUC", limits=(0, 1), chance=0.5) != draw_bars([row], "AUC", limits=(0, 1))
    for rows in ([], [BarRow("a", {"ours": None})]):
        assert area(draw_bars(rows, "AUC"), palette(1)[0]) == 0
