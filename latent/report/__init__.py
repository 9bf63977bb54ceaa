"""The latent report: one page that shows what a run has learned. `build.py` makes it, `evidence.py` says from what."""
