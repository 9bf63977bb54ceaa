"""Plotly figures as plain data and layout; colours and fonts come from the page's theme when it is drawn.

Three keys of a layout are the page's own: `equal` (the axes have one scale), `square` (and the plot shrinks to keep it)
and, in a trace, `scale` (sequential or diverging, instead of a colour scale).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Plot = dict[str, Any]


def rounded(values: Any, digits: int = 4) -> list[Any]:
    """An array as nested lists of numbers with so many significant digits: what a plot needs and no more."""
    array = np.asarray(values, np.float64)
    flat = [float(f"{value:.{digits}g}") for value in array.ravel()]
    return np.array(flat).reshape(array.shape).tolist() if flat else []


def axis(title: str, **more: Any) -> dict[str, Any]:
    """An axis with its title."""
    return {"title": {"text": title}, **more}


def lines(series: Mapping[str, tuple[Any, Any]], **layout: Any) -> Plot:
    """Named lines; few points are marked."""
    data = [
        {
            "type": "scatter",
            "mode": "lines+markers" if len(x) < 12 else "lines",
            "name": name,
            "x": list(x),
            "y": rounded(y, 5),
            "marker": {"size": 5},
        }
        for name, (x, y) in series.items()
    ]
    return {"data": data, "layout": layout}


def areas(series: Mapping[str, tuple[Any, Any]], **layout: Any) -> Plot:
    """Named histograms, as steps at the middles of their bins, one over the other."""
    data = [
        {
            "type": "scatter",
            "mode": "lines",
            "fill": "tozeroy",
            "name": name,
            "x": rounded(x),
            "y": rounded(y),
            "line": {"shape": "hvh", "width": 1.5},
        }
        for name, (x, y) in series.items()
    ]
    return {"data": data, "layout": layout}


def points(series: Mapping[str, np.ndarray]) -> Plot:
    """Named clouds of vectors, by their first two coordinates."""
    data = []
    for name, cloud in series.items():
        flat = cloud.reshape(len(cloud), -1)
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": rounded(flat[:, 0]),
                "y": rounded(flat[:, min(1, flat.shape[1] - 1)]),
                "marker": {"size": 4, "opacity": 0.55},
            }
        )
    return {"data": data, "layout": {"equal": True}}


def bars(names: Sequence[str], values: Any, unit: str, **layout: Any) -> Plot:
    """A bar for every name."""
    trace = {
        "type": "bar",
        "x": list(names),
        "y": rounded(values),
        "hovertemplate": f"%{{x}}: %{{y:.3g}} {unit}<extra></extra>",
    }
    return {"data": [trace], "layout": {"xaxis": {"showgrid": False, "type": "category"}, **layout}}


def heat(z: Any, x: Sequence[Any], y: Sequence[Any], told: str, scale: str = "sequential", **more: Any) -> Plot:
    """A matrix in colours, its first row on top; `told` is what pointing at a cell says; `more` may hold a layout."""
    layout = more.pop("layout", {})
    trace = {
        "type": "heatmap",
        "z": rounded(z, 3),
        "x": list(x),
        "y": list(y),
        "scale": scale,
        "hovertemplate": f"{told}<extra></extra>",
        **more,
    }
    down = {"autorange": "reversed", "type": "category", **layout.pop("yaxis", {})}
    return {"data": [trace], "layout": {"yaxis": down, **layout}}
