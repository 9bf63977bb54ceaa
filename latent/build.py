"""From a config to the parts of a run. The one place where config keys meet the functions they select.

Everything is read here, once, before anything is written: a wrong value, a name that does not exist or an override
that nothing reads ends the command now and not after an hour.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr

from latent import config as configs
from latent import (
    encoded,
    evaluate,
    first_stage,
    hosts,
    loops,
    optim,
    overrides,
    parallel,
    posthoc_ema,
    precision,
    rng,
    tracking,
)
from latent.data import dataset as datasets
from latent.data import feed as feeds
from latent.data import preprocess
from latent.errors import UserError, unknown_name
from latent.evaluation_data import EvaluationData
from latent.step import Recipe, build_dispatch, cycle_length, init_state
from latent.types import Batch, DataSpec, State


class Experiment(NamedTuple):
    """What a config stands for: data, model, and what trains it. `recipe.axis` is set by the driver later.

    `abstract_state()` is the shapes and dtypes of the state, traced when first asked for.
    """

    config: dict[str, Any]
    section: configs.Section
    dataset: datasets.Dataset
    spec: DataSpec
    recipe: Recipe
    hparams: dict[str, dict[str, float]]
    abstract_state: Callable[[], State]

    def epochs(self, step: int) -> float:
        """Passes over the training split that `step` steps amount to."""
        return step * self.config["train"]["batch_size"] / self.spec.size

    def duration(self, step: int) -> str:
        """How long the run has trained, and beside it the length of the published schedule where there is one."""
        published = self.config["train"]["published_epochs"]
        told = f"step {step} of {self.config['train']['steps']}, {self.epochs(step):.1f} epochs"
        return f"{told} of the published {published}" if published else told

    def feed(self, state: State, sharding: Any = None, whole: bool = False) -> feeds.Feed:
        """The batches to train on: of several processes each one's rows, or the `whole` ones. Where the split is
        encoded once, `state` holds what encodes it; of an abstract state they are right in shape only. `sharding` is
        that of a batch in evaluation."""
        data, batch_size = self.config["data"], self.config["train"]["batch_size"]
        split, once = self.dataset.splits["train"], _encodes_once(self.config)
        if once:
            if not hosts.alone():
                raise UserError("data.encode_once=True is for a single process, this run has several (allowed: False).")
            training = self.evaluation_data("train", self.config["seed"], "", sharding)
            split = encoded.split(training, state, datasets.data_directory(data["dir"]), data["device_budget"])
        rows = feeds.WHOLE if whole else hosts.own_rows(batch_size)
        feed = feeds.build(split, self.config["seed"], batch_size, data["device_budget"], data["workers"], rows)
        return feeds.of_codes(feed) if once else feed

    def evaluation_data(self, split: str, seed: int, average: str, sharding: Any = None) -> EvaluationData:
        """The split, ready for metrics. Its protocol is everything about the data that a number depends on."""
        if split not in self.dataset.splits:
            raise UserError(f"split={split!r} is not known. Allowed: {', '.join(self.dataset.splits)}.")
        protocol = {
            "data": self.dataset.name,
            "split": split,
            "data_sha256": self.dataset.digests[split],
            "preprocessing": preprocessing(self.config["data"]),
            "weights": average or "raw",
        }
        training = None if split == "train" else self.evaluation_data("train", seed, average, sharding)
        return EvaluationData(
            self.recipe.model,
            self.dataset.splits[split],
            self.recipe.prepare,
            protocol,
            seed=seed,
            batch_size=self.config["eval"]["batch_size"],
            sharding=sharding,
            training=training,
            directory=datasets.data_directory(self.config["data"]["dir"]),
        )


def preprocessing(data: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of the config section `data` that change what a model sees."""
    keys = ("resize", "crop", "dequantise", "binarise", "binarise_seed")
    chosen = {key: data[key] for key in keys if data[key]}
    if chosen["binarise"] != "seeded":
        chosen.pop("binarise_seed", None)
    return chosen


def build(config: Mapping[str, Any], overridden: Iterable[str] = (), neighbour: Experiment | None = None) -> Experiment:
    """Builds an experiment from a resolved config (nested plain dicts). A `neighbour` with the same data lends it.

    Raises UserError for anything in it that cannot be run, `overridden` keys that nothing reads included.
    """
    configs.validate(config)
    if "name" not in config["model"]:
        raise UserError(
            "--config selects no model: there is no model.name in it (configs/base.py holds defaults only)."
        )
    config = first_stage.resolve(config)
    section = configs.Section(config)
    if neighbour is not None and neighbour.config["data"] == config["data"]:
        dataset, spec, prepare = neighbour.dataset, neighbour.spec, neighbour.recipe.prepare
        section.read.update(key for key in neighbour.section.read if key.startswith("data."))
    else:
        dataset = datasets.load(section.data.name, section.data.dir, _data_options(section.data))
        dataset, spec, prepare = preprocess.build(section.data, dataset)
        prepare = encoded.or_codes(prepare)
    if section.train.batch_size > spec.size:
        raise UserError(f"train.batch_size={section.train.batch_size} is larger than the training split ({spec.size}).")
    model = configs.select("latent.models", section.model.name, "build", "model.name")(section.model, spec)
    if _encodes_once(config):
        encoded.require(model, section)
    model = precision.computed(model, config["train"].get("precision", precision.DEFAULT))
    players = [player.name for player in model.players]
    for part in ("optimizer", "hparams"):
        if sorted(config[part]) != sorted(players):
            raise UserError(f"{part} has blocks for {sorted(config[part])}, model.name={config['model']['name']!r} "
                            f"has the players {players}.")  # fmt: skip
    horizon = section.train.steps
    optimizers = {name: optim.optimizer(section.optimizer[name], f"optimizer.{name}", horizon) for name in players}
    recipe = Recipe(
        model=model,
        optimizers=optimizers,
        averages=optim.averages(section.ema),
        prepare=prepare,
        microbatches=section.train.microbatches,
    )
    hparams, batch = section.hparams.plain(), _abstract_batch(spec, 1)
    shapes = functools.cache(lambda: jax.eval_shape(lambda b: init_state(recipe, hparams, config["seed"], b), batch))
    experiment = Experiment(dict(config), section, dataset, spec, recipe, hparams, shapes)
    _check_evaluation_and_logs(experiment)
    overrides.check(overridden, section, lambda: _scalars_read(experiment))
    return experiment


def _scalars_read(experiment: Experiment) -> set[str]:
    return overrides.scalars_read(
        experiment.hparams, experiment.recipe, experiment.abstract_state(), _abstract_batch(experiment.spec, 2)
    )


def _encodes_once(config: Mapping[str, Any]) -> bool:
    return config["data"].get("encode_once", False)  # runs from before there was a choice have no such key


def _data_options(data: configs.Section) -> datasets.Options:
    """What the section `data` says of loading; keys of one kind of set are read for it only."""
    options = datasets.Options(resize=data.resize, budget=data.device_budget)
    if data.name != "folder":
        return options
    return options._replace(folder=data.folder, broken_limit=data.broken_limit)


def driver(config: Mapping[str, Any]) -> parallel.Driver:
    """The driver that the config asks for. Raises UserError where the devices are not there or do not divide."""
    section, train = config["parallel"], config["train"]
    fsdp = section["fsdp"]
    return parallel.build(section["driver"], section["devices"], train["batch_size"], train["microbatches"], fsdp)


def resolved(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with what the first start decides: horizons of schedules that end, what a first stage hands over."""
    config = first_stage.resolve(configs.unflatten(configs.flatten(config)))
    for block in config["optimizer"].values():
        if block["schedule"]["name"] == "cosine" and block["schedule"]["horizon"] is None:
            block["schedule"]["horizon"] = config["train"]["steps"]
    return config


def sibling(experiment: Experiment, config: Mapping[str, Any]) -> Experiment:
    """The experiment of a resolved config that differs in the seed and the sizes of hparams alone: all else is shared,
    so that functions compiled for one serve both."""
    return experiment._replace(config=dict(config), hparams=dict(config["hparams"]))


_RUNS_ONCE = {"cpu": {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False}}
"""Compiler options of a program that runs once: on CPU, optimising random draws takes seconds and saves none."""


def initial_state(experiment: Experiment, sharding: Any = None) -> State:
    """The state before the first step, compiled as one program, on one sharding or on a `State` of them."""
    return initial_states([experiment], sharding)[0]


def initial_states(siblings: Sequence[Experiment], sharding: Any = None) -> list[State]:
    """The states before the first step of experiments that differ in seed and hparams; compiled once."""
    experiment = siblings[0]
    raw = {"x": experiment.dataset.splits["train"].x[:1]}
    raw |= {name: np.zeros(1, np.int32) for name in ("label", "index", "position")}
    if experiment.spec.vocabulary:
        raw["text"] = np.zeros((1, 1), np.int32)

    def create(seed: Any, hparams: Any, raw_batch: Any) -> State:
        streams = rng.evaluation_stream(seed, raw_batch["position"])
        batch = experiment.recipe.prepare(raw_batch, streams, False)
        return init_state(experiment.recipe, hparams, seed, batch)

    # The seed is an argument and no constant: other seeds find the program in the compilation cache.
    compiled = jax.jit(create, out_shardings=sharding, compiler_options=_RUNS_ONCE.get(jax.default_backend()))
    states = [compiled(np.uint32(each.config["seed"]), each.hparams, raw) for each in siblings]
    for name in experiment.recipe.model.loads:
        model = experiment.config["model"]
        lie = (sharding.params[name], sharding.extra[name]) if isinstance(sharding, State) else sharding
        params, extra = hosts.put(first_stage.load_arrays(name, model[name], model[f"{name}_run"]), lie)
        states = [
            state._replace(params={**state.params, name: params}, extra={**state.extra, name: extra})
            for state in states
        ]
    return states


def _abstract_batch(spec: DataSpec, size: int) -> Batch:
    """Shapes and dtypes of a prepared batch."""
    batch = {"x": jax.ShapeDtypeStruct((size, *spec.shape), jnp.float32)}
    batch |= {name: jax.ShapeDtypeStruct((size,), jnp.int32) for name in ("label", "index", "position")}
    return batch | ({"text": jax.ShapeDtypeStruct((size, 1), jnp.int32)} if spec.vocabulary else {})


def one_cycle(experiment: Experiment) -> ClosedJaxpr:
    """The steps of one cycle of the players over whole batches, on a device that is alone; takes seconds to trace."""
    state, cycle = experiment.abstract_state(), cycle_length(experiment.recipe.model)
    feed = experiment.feed(state, whole=True)
    steps = build_dispatch(experiment.recipe, feed.fetch, cycle, rolled=False)
    return jax.make_jaxpr(steps)(state, np.uint32(0), feed.resident, feed.inputs(0, cycle))


def rollable(experiment: Experiment) -> bool:
    """Whether training steps of this experiment may stand in a compiled loop on this backend."""
    return loops.rollable_program(one_cycle(experiment))


def count_parameters(state: State) -> int:
    """Number of trained and frozen parameters in a state, concrete or abstract."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state.params))


def _check_evaluation_and_logs(experiment: Experiment) -> None:
    section = experiment.section
    tracking.check_mode(section.log.wandb)
    posthoc_ema.cadence(experiment.config)
    results = evaluate.result_names(section.eval.metrics, experiment.config["eval"]["options"])
    evaluate.require_factors(section.eval.metrics, "eval.metrics", experiment.spec)
    best = section.checkpoint.best_metric
    if best and best not in results:
        raise unknown_name("checkpoint.best_metric", best, ["", *results])
    for name in section.eval.metrics:
        if name in section.eval.options:
            section.eval.options[name].plain()  # its keys count as read: the metric reads them later
    average = section.eval.average
    if average and average not in experiment.recipe.averages:
        known = ", ".join(experiment.recipe.averages) or "none (set ema.decays or ema.relative_widths)"
        raise UserError(f"eval.average={average!r} is not an average of this run. Allowed: {known}.")
    if section.eval.split not in experiment.dataset.splits:
        raise UserError(
            f"eval.split={section.eval.split!r} is not known. Allowed: {', '.join(experiment.dataset.splits)}."
        )


DISPATCH_BYTES = 64 * 2**20
"""Of examples, that the host sends for one dispatch, where there is a choice."""


def steps_per_dispatch(
    experiment: Experiment, start: int, rolled: bool, cycle: int, runs: int = 1, step_bytes: int = 0
) -> int:
    """How many steps one compiled program takes: a divisor of every cadence and of the step a run starts at.

    Unless `train.steps_per_dispatch` says it, as many as amount to about 2e10 multiplications (some tenths of a second
    on two CPU cores), at most 100, and fewer where their examples of `step_bytes` a step are sent along; where steps
    are not rolled into a loop, one cycle of the players. `runs` is how many a device trains at once.
    """
    config = experiment.config
    cadences = [
        config["train"]["steps"],
        config["log"]["every"],
        config["eval"]["every"],
        config["checkpoint"]["every"],
        posthoc_ema.cadence(config),
    ]
    common = math.gcd(start, *cadences)
    asked = config["train"]["steps_per_dispatch"]
    if asked:
        if common % asked:
            raise UserError(
                f"train.steps_per_dispatch={asked} must divide train.steps, log.every, eval.every, checkpoint.every, "
                f"ema.snapshot_every and the step the run continues from (their greatest common divisor is {common})."
            )
        return asked
    if not rolled:
        return cycle if common % cycle == 0 else 1
    work = 6 * count_parameters(experiment.abstract_state()) * config["train"]["batch_size"] * runs
    limit = max(1, min(100, int(2e10 / max(work, 1)), DISPATCH_BYTES // max(step_bytes, 1)))
    return max(number for number in range(1, limit + 1) if common % number == 0)
