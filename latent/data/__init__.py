"""Data sets, one file each (`SOURCE`), and the way from a name to batches; start with `dataset.py`."""
