"""Metrics, one file each: `needs`, `names(options)`, `run(...) -> [Result]`; `passport.py` says what they return."""
