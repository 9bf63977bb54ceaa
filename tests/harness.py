"""Runs a toy model through the real driver, dispatch and feed, without files; reads what a run left in its files."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latent import build, checkpoint, config, logs, parallel
from latent.data.arrays import Split
from latent.data.feed import resident_feed
from latent.optim import Average, Optimizer
from latent.step import Recipe, build_dispatch, cycle_length, init_state
from tests import toys

QUIET = {"eval.metrics": (), "eval.every": 0, "checkpoint.best_metric": "", "log.images": 0}
"""Overrides of a config whose run is asked neither for numbers nor for pictures."""

QUIET_FLAGS = [f"--config.{key}={value}" for key, value in QUIET.items()]
"""The same on a command line."""


def thinned(cases, quick):
    """Parameters of a test that the quick suite holds for some of its cases only."""
    return [pytest.param(case, marks=() if case in quick else pytest.mark.slow) for case in cases]


def key(seed):
    """A key whose draws compile several times faster than those of the default kind."""
    return jax.random.key(seed, impl="rbg")


def recipe(model, transform=None, learning_rate_schedule=lambda step: 1.0, microbatches=1, averages=()):
    """SGD by default: Adam would hide a gradient that is wrong by a constant factor."""
    transform = transform or optax.trace(0.9)
    optimizers = {player.name: Optimizer(transform, learning_rate_schedule) for player in model.players}
    prepare = lambda batch, streams, train: batch  # noqa: E731
    chosen = {str(decay): Average(lambda step, decay=decay: jnp.float32(decay)) for decay in averages}
    return Recipe(model, optimizers, chosen, prepare, microbatches)


def hparams(model, rate=0.05):
    return {player.name: {"learning_rate": rate} for player in model.players}


_PROGRAMS = {}


def _programs(model, asked, make):
    """What a training of a model compiles, made once for all that differ in length, seed and numbers alone. The model
    is kept beside it: another one may not get its identity. What a test patches is not traced again."""
    asked = id(model), parallel.LEAST, asked
    if asked not in _PROGRAMS:
        _PROGRAMS[asked] = model, make()
    return _PROGRAMS[asked][1]


def train(
    model,
    steps,
    devices=1,
    count=1,
    rolled=False,
    seed=0,
    batch_size=16,
    state=None,
    x=None,
    rate=0.05,
    driver="pmap",
    fsdp=False,
    **options,
):
    """Trains for `steps` more steps; returns the state on the host and one dict of metrics a dispatch."""
    x = toys.data() if x is None else x
    feed = resident_feed(Split(x, np.full(len(x), -1, np.int32)), seed, batch_size)
    cycle = cycle_length(model)
    phases = 1 if rolled or count % cycle == 0 else cycle

    def make():
        chosen = recipe(model, **options)
        # The seed is an argument and no constant, which XLA would fold random draws of at length.
        initial = jax.jit(lambda seed, hparams, batch: init_state(chosen, hparams, seed, batch))
        on = parallel.build(driver, devices, batch_size, fsdp=fsdp)
        chosen = chosen._replace(axis=on.axis)
        return initial, on, [on.compile(build_dispatch(chosen, feed.fetch, count, rolled, at)) for at in range(phases)]

    asked = (driver, devices, fsdp, count, rolled, x.shape, batch_size, *options.items())
    initial, chosen_driver, dispatches = _programs(model, asked, make)
    if state is None:
        state = initial(np.uint32(seed), hparams(model, rate), {"x": jax.device_put(x[:1])})
    state, start = jax.device_put(state, chosen_driver.lay(state)), int(state.step)
    resident, device_seed = jax.device_put((feed.resident, np.uint32(seed)), chosen_driver.replicated)
    history = []
    for step in range(start, start + steps, count):
        dispatch = dispatches[step % phases]
        state, metrics = dispatch(state, device_seed, resident, chosen_driver.place(feed.inputs(step, count)))
        history.append(jax.device_get(metrics))
    return jax.device_get(state), history


def states(workdir):
    """{step: state} of every checkpoint of a run, on the host."""
    experiment = build.build(config.read(workdir))
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    target = checkpoint.abstract(experiment.abstract_state(), sharding)
    store = checkpoint.Checkpoints(workdir)
    return {step: jax.device_get(store.restore(step, target)[0]) for step in store.steps()}


def digests(workdir):
    """{step: digest of the state} of every checkpoint of a run."""
    return {step: checkpoint.digest(state) for step, state in states(workdir).items()}


def lines(workdir, split="train"):
    """What a run logged of a split, without times and rates."""
    timing = ("time", "steps_per_second", "images_per_second", "input_wait", "perf/")
    found = [line for line in logs.read(workdir / logs.FILE) if line["split"] == split]
    return [{key: value for key, value in line.items() if not key.startswith(timing)} for line in found]
