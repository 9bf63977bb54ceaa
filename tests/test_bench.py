"""The bench of streaming: its sets load, and its table says examples a second with median and spread."""

from __future__ import annotations

import numpy as np
import pytest

from latent.data import dataset
from latent.data.dataset import Options
from latent.data.rows import Rows
from scripts import bench


@pytest.mark.parametrize(("budget", "kind"), [(0, Rows), (2**40, np.ndarray)])
def test_its_images_are_a_set_that_is_streamed_or_resident(tmp_path, budget, kind):
    bench.write_images(tmp_path, 300)
    train = dataset.load("mnist", str(tmp_path), Options(budget=budget)).splits["train"]
    assert isinstance(train.x, kind) and train.x.shape == (300, 28, 28, 1)


def test_a_table_of_median_and_spread_without_the_first_round(monkeypatch, capsys):
    """Batches of 128: a step of 0.1 s is 1280 examples a second; streamed steps take 0.1, 0.2, 0.4 s more."""
    rounds = iter([(1.0, 9.9), (1.0, 9.9), (0.1, 0.0), (0.2, 0.1), (0.1, 0.0), (0.3, 0.2), (0.1, 0.0), (0.5, 0.3)])
    monkeypatch.setattr(bench, "loop_step", lambda *_, **__: next(rounds))
    monkeypatch.setattr(bench, "write_images", lambda *_: None)
    bench.streaming([5000], repeats=3)
    row = capsys.readouterr().out.splitlines()[-1]
    assert row == "| 5,000 | 1,280 (1,280 .. 1,280) | 427 (256 .. 640) | 200 (100 .. 400) | 20 (10 .. 30) |"
