"""What each latent dimension carries, and whether the codes fill the prior that samples are drawn from."""

from __future__ import annotations

import numpy as np

from latent.analysis import density, spread
from latent.report.evidence import Evidence
from latent.report.page import Absent, Section, number, rounded

TITLE = "Latent statistics"
MOST = 64
"""Dimensions in a plot, what carries most first."""

PLACES = np.linspace(-4.0, 4.0, 81)


def measured(evidence: Evidence) -> spread.Spread:
    """The spread of the codes; the KL only where it is known for every dimension."""
    codes = evidence.codes
    kl = codes["kl"].reshape(len(codes["kl"]), -1) if "kl" in codes else None
    by_dimension = kl if kl is not None and kl.shape == codes["mean"].shape else None
    return spread.measure(codes["mean"], codes["sample"], by_dimension)


def section(evidence: Evidence) -> Section | Absent:
    """Needs an encoder."""
    if evidence.codes is None:
        return Absent(TITLE, evidence.without("encode"))
    found = measured(evidence)
    order = found.order[:MOST]
    names = [f"z{axis}" for axis in order]
    plots = {"latent-variance": _variance(found, order, names), "latent-correlation": _correlation(found, order, names)}
    if found.kl is not None:
        plots["latent-kl"] = {
            "data": [
                {
                    "type": "bar",
                    "x": names,
                    "y": rounded(found.kl[order]),
                    "hovertemplate": "%{x}: %{y:.3g} nats<extra></extra>",
                }
            ],
            "layout": {"yaxis": {"title": {"text": "KL, nats"}}},
        }
    if "log_scale" in evidence.codes:  # a density that a prior is fitted to
        plots["latent-marginals"] = _marginals(evidence, order, names)
        plots["latent-plane"] = _plane(evidence, order)
    active, dimensions = int(found.active.sum()), len(found.active)
    lead = f"{active} of {dimensions} dimensions are active (variance of the posterior mean above {spread.ACTIVE})."
    if found.kl is not None:
        lead += f" KL {number(found.kl.sum())} nats over all dimensions."
    if dimensions > MOST:
        lead += f" The {MOST} that carry most are shown."
    return Section(TITLE, lead, {"places": list(plots), "used": _codebook(evidence)}, plots)


def _variance(found: spread.Spread, order: np.ndarray, names: list[str]) -> dict:
    bars = {
        "type": "bar",
        "x": names,
        "y": rounded(found.variance_of_means[order]),
        "hovertemplate": "%{x}: %{y:.3g}<extra></extra>",
    }
    line = {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": spread.ACTIVE,
        "y1": spread.ACTIVE,
        "line": {"dash": "dot", "width": 1},
    }
    smallest = max(1e-6, float(found.variance_of_means[order].min()) / 2)
    top = float(found.variance_of_means.max()) * 1.5
    axis = {
        "type": "log",
        "title": {"text": "variance of E[z | x]"},
        "range": [np.log10(min(smallest, spread.ACTIVE / 2)), np.log10(max(top, 0.1))],
    }
    return {"data": [bars], "layout": {"yaxis": axis, "shapes": [line]}}


def _correlation(found: spread.Spread, order: np.ndarray, names: list[str]) -> dict:
    heat = {
        "type": "heatmap",
        "z": rounded(found.correlation[np.ix_(order, order)], 2),
        "x": names,
        "y": names,
        "zmin": -1,
        "zmax": 1,
        "scale": "diverging",
        "hovertemplate": "%{y}, %{x}: %{z:.2f}<extra></extra>",
    }
    return {
        "data": [heat],
        "layout": {
            "yaxis": {"autorange": "reversed", "type": "category"},
            "xaxis": {"type": "category"},
            "square": True,
        },
    }


def _marginals(evidence: Evidence, order: np.ndarray, names: list[str]) -> dict:
    found = density.marginals(evidence.codes["sample"][:, order], PLACES)
    normal = np.exp(-0.5 * PLACES**2) / np.sqrt(2 * np.pi)
    heat = {
        "type": "heatmap",
        "z": rounded(np.concatenate([normal[None], found]), 3),
        "x": rounded(PLACES),
        "y": ["N(0, 1)", *names],
        "scale": "sequential",
        "zmin": 0,
        "zmax": 0.6,
        "hovertemplate": "%{y} at %{x:.1f}: density %{z:.2f}<extra></extra>",
    }
    return {
        "data": [heat],
        "layout": {"yaxis": {"autorange": "reversed", "type": "category"}, "xaxis": {"title": {"text": "value"}}},
    }


def _plane(evidence: Evidence, order: np.ndarray) -> dict:
    """The aggregate posterior of the two dimensions that carry most, and the prior's circles of 1 and 2."""
    both = [order[0], order[min(1, len(order) - 1)]]
    heat = {
        "type": "contour",
        "z": rounded(density.plane(evidence.codes["sample"][:, both], PLACES), 3),
        "x": rounded(PLACES),
        "y": rounded(PLACES),
        "scale": "sequential",
        "contours": {"coloring": "heatmap", "showlines": False},
        "hovertemplate": "%{x:.1f}, %{y:.1f}: density %{z:.3f}<extra></extra>",
    }
    circles = [
        {"type": "circle", "x0": -r, "x1": r, "y0": -r, "y1": r, "line": {"dash": "dot", "width": 1.5}} for r in (1, 2)
    ]
    layout = {"shapes": circles, "square": True, "equal": True}
    layout |= {"xaxis": {"title": {"text": f"z{both[0]}"}}, "yaxis": {"title": {"text": f"z{both[1]}"}}}
    return {"data": [heat], "layout": layout}


def codebook_size(evidence: Evidence) -> int:
    """How many codes the bottleneck has; 0 for one without a codebook."""
    model = evidence.config["model"]
    sizes = {"vq": lambda: model["codebook"]["size"], "fsq": lambda: int(np.prod(model["levels"]))}
    return (
        sizes[model["bottleneck"]]() if "indices" in (evidence.codes or {}) and model.get("bottleneck") in sizes else 0
    )


def _codebook(evidence: Evidence) -> str:
    size = codebook_size(evidence)
    if not size:
        return ""
    counts = np.bincount(evidence.codes["indices"].ravel(), minlength=size)
    share = counts[counts > 0] / counts.sum()
    perplexity = float(np.exp(-np.sum(share * np.log(share))))
    return f"{number(int((counts > 0).sum()))} of {number(size)} codes are used; perplexity {number(perplexity)}."
