"""Words to points: products, zips, draws that stay what they were."""

from __future__ import annotations

import numpy as np
import pytest

from latent.errors import UserError
from latent.sweeps import axes


def test_values_are_split_at_commas_outside_brackets():
    assert axes.split("2,8, 32") == ("2", "8", "32")
    assert axes.split("(16, 16),8,[1,(2,3)]") == ("(16, 16)", "8", "[1,(2,3)]")


def test_grids_multiply_zips_move_together_and_seeds_are_innermost():
    asked = axes.parse(["a=1,2"], [["b=3,4", "c=5,6"]], seeds=2)
    points = axes.points(asked, first_seed=7)
    assert len(points) == 2 * 2 * 2 and points[0] == {"a": "1", "b": "3", "c": "5", "seed": 7}
    assert {(point["b"], point["c"]) for point in points} == {("3", "5"), ("4", "6")}
    assert [point["seed"] for point in points] == [7, 8] * 4
    assert asked.varied() == ["a", "b", "c", "seed"]


def test_a_draw_depends_on_nothing_but_seed_key_and_number():
    few = axes.points(axes.parse(random=["a=log:0.1..10"], draws=3))
    many = axes.points(axes.parse(random=["b=int:1..9", "a=log:0.1..10"], draws=20))
    assert [point["a"] for point in few] == [point["a"] for point in many[:3]]
    other = axes.points(axes.parse(random=["a=log:0.1..10"], draws=3, draw_seed=1))
    assert [point["a"] for point in few] != [point["a"] for point in other]


@pytest.mark.parametrize(
    ("space", "low", "median", "high"),
    [
        ("uniform:-1..3", -1, 1, 3),
        ("log:0.01..100", 0.01, 1, 100),
        ("int:1..5", 1, 3, 5),
        ("logint:1..99", 1, 10, 99),
    ],
)
def test_draws_cover_their_space_and_stay_inside(space, low, median, high):
    values = np.array([point["k"] for point in axes.points(axes.parse(random=[f"k={space}"], draws=2000))])
    assert low <= values.min() and values.max() <= high
    assert np.mean(values <= low + 0.1 * (high - low)) > 0.05 and np.mean(values >= high - 0.5 * (high - low)) > 0.05
    # 2000 draws: the share below the median of the space is one half to four standard errors, ties aside.
    assert np.mean(values < median) <= 0.55 and np.mean(values <= median) >= 0.45
    assert all(float(f"{value:.4g}") == value for value in values)


def test_integers_include_both_ends_evenly():
    values = [point["k"] for point in axes.points(axes.parse(random=["k=int:1..4"], draws=4000))]
    assert np.bincount(values, minlength=5)[1:].min() > 850


def test_choices_are_words():
    values = {point["k"] for point in axes.points(axes.parse(random=["k=(8,8),tanh"], draws=50))}
    assert values == {"(8,8)", "tanh"}


BAD = {
    "no value": ({"grid": ["a"]}, "KEY=VALUE"),
    "uneven zip": ({"zips": [["a=1,2", "b=1"]]}, "a has 2, b has 1"),
    "twice": ({"grid": ["a=1"], "zips": [["a=1"]]}, "a is on two axes"),
    "seed twice": ({"grid": ["seed=1"], "seeds": 2}, "seed is on two axes"),
    "kind": ({"random": ["a=lgo:1..2"], "draws": 1}, "'log'"),
    "limits": ({"random": ["a=log:1,2"], "draws": 1}, "LOW..HIGH"),
    "reversed": ({"random": ["a=log:2..1"], "draws": 1}, "LOW < HIGH, LOW > 0"),
    "log of zero": ({"random": ["a=log:0..1"], "draws": 1}, "LOW > 0"),
    "half": ({"random": ["a=int:0.5..2"], "draws": 1}, "both whole"),
    "no draws": ({"random": ["a=log:1..2"]}, "--draws"),
    "no space": ({"draws": 3}, "--random"),
    "negative": ({"grid": ["a=1"], "seeds": -1}, "--seeds=-1"),
}


@pytest.mark.parametrize(("words", "told"), BAD.values(), ids=BAD)
def test_bad_words_are_named(words, told):
    with pytest.raises(UserError) as error:
        axes.parse(**words)
    assert told in str(error.value)
