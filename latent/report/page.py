"""Sections to one HTML file that needs nothing but itself: styles, scripts, pictures and data are all inside."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from latent.metrics.passport import valid

TEMPLATES = Path(__file__).parent / "templates"


class Section(NamedTuple):
    """One section: its title, a sentence on what it shows, values for its template (templates/<name>.html.jinja),
    plots by the id of their place in it (Plotly's data and layout), and data that its script reads."""

    title: str
    lead: str
    values: Mapping[str, Any]
    plots: Mapping[str, Mapping[str, Any]] = {}
    data: Mapping[str, Any] | None = None


class Absent(NamedTuple):
    """A section that this run cannot have, and why."""

    title: str
    reason: str


@functools.cache
def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    return environment


def number(value: Any, digits: int = 3) -> str:
    """A number for people: integers whole with separators, others to so many significant digits."""
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if float(value) == int(float(value)) and abs(value) < 1e9:
        return f"{int(value):,}".replace(",", "\u2009")
    return f"{value:.{digits}g}"


def render(title: str, sections: Mapping[str, Section | Absent], made: str) -> str:
    """The page. `made` says when and by which version."""
    import plotly.offline

    environment = _environment()
    shown = [
        {
            "name": name,
            "title": section.title,
            "lead": getattr(section, "lead", ""),
            "reason": getattr(section, "reason", ""),
            "body": _body(environment, name, section),
        }
        for name, section in sections.items()
    ]
    full = {name: section for name, section in sections.items() if isinstance(section, Section)}
    data = {
        "plots": {place: plot for section in full.values() for place, plot in section.plots.items()},
        "sections": {name: section.data for name, section in full.items() if section.data is not None},
    }
    return environment.get_template("page.html.jinja").render(
        title=title,
        made=made,
        sections=shown,
        style=(TEMPLATES / "style.css").read_text(),
        scripts=[(TEMPLATES / name).read_text() for name in ("page.js", "map.js", "traversals.js")],
        plotly=plotly.offline.get_plotlyjs().replace("</script", "<\\/script"),
        data=_json(data),
    )


def _body(environment: Any, name: str, section: Section | Absent) -> str:
    if isinstance(section, Absent):
        return ""
    return environment.get_template(f"{name}.html.jinja").render(**section.values)


def _json(data: Any) -> str:
    """JSON that may stand inside a script element."""
    return json.dumps(valid(data), allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
