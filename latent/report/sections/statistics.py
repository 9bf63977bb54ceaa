"""What each latent dimension carries, and whether the codes fill the prior that samples are drawn from."""

from __future__ import annotations

import numpy as np

from latent.analysis import density, spread
from latent.report.evidence import Evidence
from latent.report.page import Absent, Section, number
from latent.report.plots import Plot, axis, bars, heat, rounded

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
    plots = {}
    if found.kl is not None:
        plots["latent-kl"] = bars(names, found.kl[order], "nats", yaxis=axis("KL, nats"))
    plots["latent-variance"] = _variance(found, order, names)
    if "log_scale" in evidence.codes:  # a density, that a prior is fitted to
        plots["latent-marginals"] = _marginals(evidence, order, names)
        plots["latent-plane"] = _plane(evidence, order)
    plots["latent-correlation"] = heat(
        found.correlation[np.ix_(order, order)],
        names,
        names,
        "%{y}, %{x}: %{z:.2f}",
        "diverging",
        zmin=-1,
        zmax=1,
        layout={"xaxis": {"type": "category"}, "square": True},
    )
    active, dimensions = int(found.active.sum()), len(found.active)
    lead = f"{active} of {dimensions} dimensions are active (variance of the mean code above {spread.ACTIVE})."
    if found.kl is not None:
        lead += f" KL {number(found.kl.sum())} nats over all dimensions."
    if dimensions > MOST:
        lead += f" The {MOST} that carry most are shown."
    return Section(TITLE, lead, {"places": list(plots), "used": _codebook(evidence)}, plots)


def _variance(found: spread.Spread, order: np.ndarray, names: list[str]) -> Plot:
    values = found.variance_of_means
    low = max(1e-4, min(float(values[order].min()), spread.ACTIVE) / 2)
    limits = [np.log10(low), np.log10(max(1.5 * float(values.max()), 0.1))]
    bound = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": spread.ACTIVE, "y1": spread.ACTIVE}
    bound["line"] = {"dash": "dot", "width": 1}
    upright = axis("variance of E[z | x]", type="log", dtick=1, range=limits)
    return bars(names, values[order], "", yaxis=upright, shapes=[bound])


def _marginals(evidence: Evidence, order: np.ndarray, names: list[str]) -> Plot:
    found = density.marginals(evidence.codes["sample"][:, order], PLACES)
    normal = np.exp(-0.5 * PLACES**2) / np.sqrt(2 * np.pi)
    told = "%{y} at %{x:.1f}: density %{z:.2f}"
    rows = np.concatenate([normal[None], found])
    return heat(rows, rounded(PLACES), ["N(0, 1)", *names], told, zmin=0, zmax=0.6, layout={"xaxis": axis("value")})


def _plane(evidence: Evidence, order: np.ndarray) -> Plot:
    """The aggregate posterior of the two dimensions that carry most, and the prior's circles of 1 and 2."""
    first, second = order[0], order[min(1, len(order) - 1)]
    z = density.plane(evidence.codes["sample"][:, [first, second]], PLACES)
    circles = [
        {"type": "circle", "x0": -r, "x1": r, "y0": -r, "y1": r, "line": {"dash": "dot", "width": 1.5}} for r in (1, 2)
    ]
    layout = {"shapes": circles, "square": True, "xaxis": axis(f"z{first}")}
    layout["yaxis"] = axis(f"z{second}", type="linear", autorange=True)
    told = "%{x:.1f}, %{y:.1f}: density %{z:.3f}"
    return heat(z, rounded(PLACES), rounded(PLACES), told, zsmooth="best", layout=layout)


def codebook_size(evidence: Evidence) -> int:
    """How many codes the bottleneck has; 0 for one without a codebook."""
    if "indices" not in (evidence.codes or {}):
        return 0
    model = evidence.config["model"]
    sizes = {"vq": lambda: model["codebook"]["size"], "fsq": lambda: int(np.prod(model["levels"]))}
    return sizes[model["bottleneck"]]() if model["bottleneck"] in sizes else 0


def _codebook(evidence: Evidence) -> str:
    size = codebook_size(evidence)
    if not size:
        return ""
    counts = np.bincount(evidence.codes["indices"].ravel(), minlength=size)
    share = counts[counts > 0] / counts.sum()
    perplexity = float(np.exp(-np.sum(share * np.log(share))))
    return f"{number(int((counts > 0).sum()))} of {number(size)} codes are used; perplexity {number(perplexity)}."
