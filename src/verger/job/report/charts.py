"""Geometry of the page's charts, which the template draws as SVG: numbers in, coordinates out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

#: Size of a line chart's drawing area and its margins, in units of the SVG.
_WIDTH, _HEIGHT = 420, 230
_LEFT, _TOP, _RIGHT, _BOTTOM = 46, 10, 14, 40
#: More on the right, where an axis is written on both sides.
_RIGHT_LABELS = 28

#: Classes that a matrix shows: more could not be read.
MATRIX_CLASSES = 130

Point = tuple[float, float]


def line_chart(
    lines: Mapping[str, Sequence[Point]],
    *,
    x_label: str,
    x_ticks: Sequence[float],
    ends: tuple[float, float] | None = None,
    logarithmic: bool = False,
    x_percent: bool = False,
) -> dict[str, Any]:
    """Lay out lines of shares.

    Parameters
    ----------
    lines : mapping of str to sequence of (float, float)
        Name, and points with y from 0 to 1.
    x_label : str
    x_ticks : sequence of float
    ends : (float, float), optional
        Of the x axis; by default the first and the last tick.
    logarithmic : bool
        Whether x is.
    x_percent : bool
        Whether x is a share as well.
    """
    scale = math.log if logarithmic else float
    low, high = map(scale, ends or (x_ticks[0], x_ticks[-1]))

    def place(x: float, y: float) -> Point:
        across = (scale(x) - low) / (high - low)
        return round(_LEFT + across * _WIDTH, 1), round(_TOP + (1 - y) * _HEIGHT, 1)

    return {
        "width": _LEFT + _WIDTH + _RIGHT,
        "height": _TOP + _HEIGHT + _BOTTOM,
        "left": _LEFT,
        "right": _LEFT + _WIDTH,
        "top": _TOP,
        "bottom": _TOP + _HEIGHT,
        "x_label": x_label,
        "x_ticks": [(place(x, 0)[0], f"{x:.0%}" if x_percent else f"{x:g}") for x in x_ticks],
        "y_ticks": [(place(x_ticks[0], y / 4)[1], f"{y * 25} %") for y in range(5)],
        "lines": [
            {"name": name, "points": [place(*point) for point in points], "values": list(points)}
            for name, points in lines.items()
        ],
    }


#: Shares of the variance that a scree plot says the number of components for.
_LEVELS = (0.8, 0.9)
#: Highest shares that the axis of a scree plot's bars may end at: four steps of it are round.
_TOPS = (0.002, 0.004, 0.01, 0.02, 0.04, 0.08, 0.12, 0.2, 0.4, 0.6, 0.8, 1)


def scree_chart(ratios: Sequence[float], pca: Mapping[str, Any]) -> dict[str, Any]:
    """Lay out a spectrum: bars on an axis of their own, the running sum, the chosen k.

    Parameters
    ----------
    ratios : sequence of float
        Shares of the variance of the first components, at least one.
    pca : mapping
        ``n_components``, and ``k``: to a share the number of components that reach it.
    """
    n, sums = len(ratios), [min(total, 1.0) for total in accumulate(ratios)]
    step = next(step for step in (1, 2, 5, 10, 20, 25, 50, 100) if n <= 6 * step)
    chart = line_chart(
        {"running sum": list(enumerate(sums, start=1))},
        x_label="principal component",
        x_ticks=[1, *range(step, n + 1, step)] if step > 1 else range(1, n + 1),
        ends=(0, n + 1),
    )
    top = next(top for top in _TOPS if ratios[0] <= top + 1e-6)
    wide = _WIDTH / (n + 1)
    bars = [
        {
            "x": round(_LEFT + (number - 0.4) * wide, 1),
            "y": round(_TOP + (1 - ratio / top) * _HEIGHT, 1),
            "number": number,
            "ratio": ratio,
            "sum": total,
        }
        for number, (ratio, total) in enumerate(zip(ratios, sums, strict=True), start=1)
    ]
    k = pca["n_components"]
    reached = {float(share): number for share, number in pca["k"].items()}
    return chart | {
        "width": chart["width"] + _RIGHT_LABELS,
        "bars": bars,
        "bar_width": round(0.8 * wide, 1),
        "bar_ticks": [(y, f"{100 * top * i / 4:g} %") for i, (y, _) in enumerate(chart["y_ticks"])],
        "levels": [
            (round(_TOP + (1 - share) * _HEIGHT, 1), share, reached[share])
            for share in _LEVELS
            if share in reached
        ],
        "chosen": round(_LEFT + k * wide, 1) if k <= n else None,
    }


def matrix_chart(confusion: Sequence[Sequence[int]], labels: Sequence[str]) -> dict[str, Any]:
    """Lay out a confusion matrix; of many classes those with the most mistakes.

    Parameters
    ----------
    confusion : sequence of (int, int, int)
        True class, predicted class, photos; what is not there is 0.
    labels : sequence of str
    """
    n_true, n_wrong = [0] * len(labels), [0] * len(labels)
    for true, predicted, n in confusion:
        n_true[true] += n
        if true != predicted:
            n_wrong[true] += n
            n_wrong[predicted] += n
    worst = sorted(range(len(labels)), key=lambda i: (-n_wrong[i], i))[:MATRIX_CLASSES]
    place = {label: at for at, label in enumerate(sorted(worst))}
    cell = 26 if len(place) <= 20 else 15 if len(place) <= 60 else 12
    text = min(cell - 1.5, 13)
    margin = round(12 + 0.56 * text * max(len(labels[i]) for i in place))
    cells = [
        {
            "x": margin + cell * place[p],
            "y": margin + cell * place[t],
            "n": n,
            "true": labels[t],
            "predicted": labels[p],
            "hit": t == p,
            "share": n / n_true[t],
            "shade": round(0.2 + 0.8 * (n / n_true[t]) ** 0.5, 2),
        }
        for t, p, n in confusion
        if t in place and p in place
    ]
    return {
        "cell": cell,
        "text": text,
        "margin": margin,
        "size": margin + cell * len(place) + 2,
        "names": [(labels[i], margin + cell * at) for i, at in place.items()],
        "cells": cells,
        "n_labels": len(labels),
    }


def evaluation_charts(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Lay out every chart of an evaluation, as ``classifier/evaluation.json`` holds it."""
    asked = evaluation["evaluation"]
    bins, curve, by_k = asked["reliability"], asked["curve"], asked.get("by_k") or []
    named = {
        "photos that get a name": [(c["threshold"], c["coverage"]) for c in curve],
        "of those, wrong": [(c["threshold"], c["error"]) for c in curve if c["error"] is not None],
        "photos of other things that get one": [
            (c["threshold"], c["others"]) for c in curve if c["others"] is not None
        ],
    }
    even = [0, 0.25, 0.5, 0.75, 1]
    return {
        "reliability": line_chart(
            {
                "claimed": [(0, 0), (1, 1)],
                "came true": [(b["probability"], b["accuracy"]) for b in bins],
            },
            x_label="probability of the prediction",
            x_ticks=even,
            x_percent=True,
        ),
        "curve": line_chart(
            {name: points for name, points in named.items() if points},
            x_label="threshold",
            x_ticks=even,
            x_percent=True,
        ),
        "by_k": line_chart(
            {
                "accuracy": [(b["k"], b["accuracy"]) for b in by_k],
                "variance": [(b["k"], min(b["variance"], 1.0)) for b in by_k],
            },
            x_label="components",
            x_ticks=_powers(by_k[-1]["k"]),
            logarithmic=True,
        )
        if len(by_k) > 1
        else None,
        "matrix": matrix_chart(evaluation["confusion"], evaluation["labels"]),
    }


def _powers(last: int) -> list[int]:
    """Return ticks of a logarithmic axis from 1 to ``last``."""
    ticks = [tick for tick in (1, 3, 10, 30, 100, 300, 1000, 3000) if tick < 0.75 * last]
    return [*ticks, last]
