"""Between images: straight lines and great circles; and the whole of a two-dimensional prior."""

from __future__ import annotations

import numpy as np

from latent.analysis import interpolation, prior_grid
from latent.report import images
from latent.report.evidence import Evidence
from latent.report.page import Absent, Section, number

TITLE = "Interpolation"
PAIRS = 5
STEPS = 11
LENGTHS = 250
"""Pairs that the path length is measured on."""

SIDE = 19
"""Of the grid over the prior."""


def section(evidence: Evidence) -> Section | Absent:
    """Needs a decoder, and images to look at."""
    if evidence.space is None:
        return Absent(TITLE, evidence.without("decode"))
    if not evidence.is_image:
        return Absent(TITLE, f"Examples of shape {evidence.spec.shape} are no pictures to go between.")
    t = np.linspace(0.0, 1.0, STEPS)
    ends = pairs(evidence)
    ways = {"straight line": interpolation.lerp, "great circle": interpolation.slerp}
    codes = np.stack([[way(start, end, t) for way in ways.values()] for start, end in ends])
    decoded = evidence.decode(codes)
    rows = [[(name, images.strip(one)) for name, one in zip(ways, pair, strict=True)] for pair in decoded]
    grid = None
    if evidence.latent_shape == (2,) and evidence.config["model"].get("prior", "standard_normal") == "standard_normal":
        grid = images.table(evidence.decode(prior_grid.normal_grid(SIDE)))
    between = "examples of different classes" if evidence.codes is not None else "draws of the prior"
    lead = (
        f"{STEPS} steps between the codes of {between}. A smooth latent space changes what it shows little by little; "
        "a jump or a blur on the way is a region that training has not filled."
    )
    lead += _speed(evidence)
    return Section(TITLE, lead, {"rows": rows, "grid": grid, "side": SIDE})


def _speed(evidence: Evidence) -> str:
    """The path length, over random pairs, as a sentence."""
    generator = np.random.default_rng(0)
    codes = evidence.space if evidence.codes is None else evidence.codes["mean"]
    starts, ends = codes[generator.permutation(len(codes))], codes[generator.permutation(len(codes))]
    way = interpolation.slerp if evidence.codes is None else interpolation.lerp
    count = min(LENGTHS, len(codes))
    found = interpolation.path_lengths(
        evidence.decode, starts[:count], ends[:count], generator.uniform(size=count), way
    )
    low, middle, high = np.percentile(found, (5, 50, 95))
    return (
        f" Path length over {count} random pairs, squared distance of values: median {number(middle)}, 90% between "
        f"{number(low)} and {number(high)}."
    )


def pairs(evidence: Evidence) -> list[tuple[np.ndarray, np.ndarray]]:
    """Codes to go between: of examples of different classes where there are classes, else of the first ones."""
    if evidence.codes is None:
        return [(evidence.space[2 * i], evidence.space[2 * i + 1]) for i in range(PAIRS)]
    means = evidence.codes["mean"]
    if evidence.label is None or len(np.unique(evidence.label)) < 2:
        return [(means[2 * i], means[2 * i + 1]) for i in range(PAIRS)]
    firsts = [int(np.flatnonzero(evidence.label == label)[0]) for label in np.unique(evidence.label)]
    order = [firsts[i % len(firsts)] for i in range(2 * PAIRS)]
    return [(means[order[2 * i]], means[order[2 * i + 1]]) for i in range(PAIRS)]
