"""What a linear classifier reads off codes or features: how much of a class lies open in them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int


def linear(
    codes: Float[np.ndarray, "N d"], labels: Int[np.ndarray, "N"], others: Float[np.ndarray, "M d"]
) -> Int[np.ndarray, "M"]:
    """Classes that multinomial logistic regression (penalty |w|^2 / 2, C = 1) finds for `others`. Every dimension is
    scaled to unit variance over `codes` first, so that the scale of a code decides nothing."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    fitted = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=1000)).fit(codes, labels)
    return fitted.predict(others)
