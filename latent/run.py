"""A trained run in a notebook: `run = latent.load("runs/vae")`, then encode, decode, sample, evaluate.

Thin over the functions the commands use; owns the compiled versions of a model's functions and nothing else.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Shaped

from latent import build, checkpoint, config, evaluate, evaluation_data, posthoc_ema, provenance, rng
from latent.analysis import ex_post
from latent.data import text
from latent.errors import UserError, unknown_name
from latent.metrics.passport import Result
from latent.types import Condition, Indices, Latent, Model


def load(workdir: str | Path, step: str | int = "latest", average: str | None = None) -> Run:
    """Loads a run: `step` is "latest", "best" or a number; `average` names averaged weights ("" for the raw ones,
    "posthoc_WIDTH" for any width, from a run's snapshots; None for what the run's own evaluation uses).

    Raises UserError where there is no run, no such checkpoint, or no such average.
    """
    return Run(Path(workdir), step, average)


class Run:
    """A model with the weights of one checkpoint. Arrays in, arrays out; batches of any size."""

    def __init__(self, workdir: Path, step: str | int, average: str | None):
        self.config = config.read(workdir)
        self.experiment = build.build(self.config)
        self.model, self.spec = self.experiment.recipe.model, self.experiment.spec
        self._data: dict[str, evaluation_data.EvaluationData] = {}
        self._drawn: dict[str, Any] = {}
        self._read(workdir, step, average)

    def beside(self, workdir: str | Path, step: str | int = "latest") -> Run:
        """Another run that differs from this one in seed and hparams alone, with everything shared that was loaded and
        compiled. Raises UserError where it differs in more."""
        other = copy.copy(self)
        other.config = config.read(Path(workdir))
        mine, theirs = ({**each.config, "seed": 0, "hparams": {}} for each in (self, other))
        if mine != theirs:
            raise UserError(f"{workdir} differs from {self.workdir} in more than seed and hparams: load it by itself.")
        other.experiment = build.sibling(self.experiment, other.config)
        other._data = {split: data.reseeded(other.config["seed"]) for split, data in self._data.items()}
        other._read(Path(workdir), step, self.average)
        return other

    def _read(self, workdir: Path, step: str | int, average: str | None) -> None:
        """Takes the weights of a checkpoint."""
        self.workdir = workdir
        self.average = self.config["eval"]["average"] if average is None else average
        keep = self.config["checkpoint"]
        store = checkpoint.Checkpoints(workdir, keep["keep"], keep["best_metric"], keep["best_mode"], apart=True)
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        target = checkpoint.abstract(self.experiment.abstract_state(), sharding)
        try:
            self.state = _averaged(workdir, _restore(store, step, target), self.average)
        finally:
            store.close()
        self.step = int(self.state.step)

    def encode(self, x: Shaped[Array, "B ..."] | np.ndarray, seed: int = 0) -> Latent:
        """Encodes prepared examples (what `examples` returns) to a `Latent` with mean, sample and info."""
        self._need("encode")
        keys = rng.evaluation_stream(seed, jnp.arange(len(x)))("posterior")
        return self._encode(self.state, jnp.asarray(x), keys)

    def decode(self, z: Shaped[Array, "B ..."] | np.ndarray) -> Shaped[Array, "B ..."]:
        """Decodes latents to the mean of p(x | z)."""
        self._need("decode")
        return self._decode(self.state, jnp.asarray(z))

    def sample(
        self,
        num: int,
        seed: int = 0,
        condition: Any = None,
        prompt: str | Sequence[str] | None = None,
        **options: Any,
    ) -> Shaped[Array, "N ..."]:
        """Draws samples; sample i depends on (seed, i) only. `condition` is a class, or one for each sample, where the
        model was trained with labels; `prompt` a text, or one for each, where it was trained with text; `options` are
        the family's own."""
        self._need("sample")
        condition = self._condition(condition, prompt, num)
        self._check_options(options)
        keys = rng.sample_keys(self._seed(seed), jnp.arange(num))
        return self.model.sample(self.state.params, self.state.extra, keys, condition, **options)

    def check_mode(self, mode: str) -> None:
        """Raises UserError where the family has no edit of this name."""
        if mode not in self.model.edits:
            known = ("generate", *self.model.edits)
            raise unknown_name(f"--mode of a {self.config['model']['name']!r}", mode, known)

    def edit(
        self,
        mode: str,
        x: Shaped[Array, "N ..."] | np.ndarray,
        seed: int = 0,
        condition: Any = None,
        prompt: str | Sequence[str] | None = None,
        **options: Any,
    ) -> dict[str, Array]:
        """What the family makes of prepared examples: {"x": [M, ...], ...}. `mode` and `options` are the family's
        (of latent diffusion: latent/diffusion/edits.py); `condition` and `prompt` as for `sample`, or a `Condition`."""
        self.check_mode(mode)
        condition = self._condition(condition, prompt, len(x))
        keys = rng.sample_keys(self._seed(seed), jnp.arange(len(x)))
        on_device = lambda leaf: jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf  # noqa: E731
        x, options = jax.tree.map(on_device, (x, options))
        return self.model.edits[mode](self.state.params, self.state.extra, keys, x, condition, **options)

    def examples(self, split: str, limit: int = 0, rows: Indices | None = None) -> dict[str, np.ndarray]:
        """Prepared examples of a split: {"x", "label", "index"}, as evaluation sees them, and the "factors" and "text"
        of a set that has them. `rows`: only these places of the split."""
        return self.data(split).map(_batch, self.state, limit=limit, rows=rows)

    def encode_split(self, split: str, limit: int = 0, rows: Indices | None = None) -> dict[str, np.ndarray]:
        """Codes of a split: {"mean", "sample", "label", "index"}, of `info` what has one row an example, and the
        "factors" of a set that has them."""
        self._need("encode")
        return self.data(split).map(_codes, self.state, limit=limit, rows=rows)

    def evaluate(
        self,
        metrics: Sequence[str] = (),
        split: str = "test",
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> list[Result]:
        """Runs metrics (by default those of the config) on a split and records them in evaluation/STEP.json."""
        names = tuple(metrics) or tuple(self.config["eval"]["metrics"])
        merged = {name: dict(values) for name, values in self.config["eval"]["options"].items()}
        for name, values in (options or {}).items():
            if name not in merged and name not in names:
                raise unknown_name("--options", name, {*merged, *names})
            unknown = set(values) - set(merged.get(name, values))
            if unknown:
                raise UserError(f"--options: {name} has no {sorted(unknown)}. Allowed: {sorted(merged[name])}.")
            merged[name] = merged.get(name, {}) | values
        evaluate.require_factors(names, "--metrics", self.spec)
        data = self.data(split)
        evaluate.result_names([name for name in names if not evaluate.missing(name, self.state, data)], merged)
        results = evaluate.run(names, self.state, data, merged)
        evaluate.record(self.workdir, self.step, results, provenance.of_result(self.experiment, self.step))
        return results

    def with_sampling(self, **options: Any) -> Run:
        """The same run whose samples, those of `evaluate` included, are drawn with these options of the family; those
        that are not what the run's config says already enter the passports."""
        if not options:
            return self
        self._check_options(options)
        known = inspect.signature(self.model.sample).parameters
        other = {name: value for name, value in options.items() if value != known[name].default}
        if not other:
            return self
        return self._variant(self.model._replace(sample=functools.partial(self.model.sample, **other)), other)

    def with_density(self, name: str, split: str = "train") -> Run:
        """The same run whose prior is a density fitted to the codes of a split: "gaussian" or "mixture:K"
        (latent/analysis/ex_post.py). The codes are draws of the posterior."""
        ex_post.components(name)
        self._need("decode")
        density = ex_post.fit(self.encode_split(split)["sample"], name)
        return self._variant(ex_post.replace_prior(self.model, density), {"density": name, "density_split": split})

    def _variant(self, model: Model, drawn: Mapping[str, Any]) -> Run:
        """The same weights in a model that draws its samples otherwise."""
        other = copy.copy(self)
        other.model, other._data, other._drawn = model, {}, {**self._drawn, **drawn}
        other.experiment = self.experiment._replace(recipe=self.experiment.recipe._replace(model=model))
        return other

    def data(self, split: str) -> evaluation_data.EvaluationData:
        """A split as metrics see it."""
        if split not in self._data:
            data = self.experiment.evaluation_data(split, self.config["seed"], self.average)
            if self._drawn:
                data.protocol["sampling"] = dict(self._drawn)
            self._data[split] = data
        return self._data[split]

    @functools.cached_property
    def _encode(self) -> Any:
        return jax.jit(lambda state, x, keys: self.model.encode(state.params, state.extra, x, keys))

    @functools.cached_property
    def _decode(self) -> Any:
        return jax.jit(lambda state, z: self.model.decode(state.params, state.extra, z))

    def _condition(self, condition: Any, prompt: str | Sequence[str] | None, num: int) -> Any:
        """What the model's functions take: None, classes, or with a text a `Condition`."""
        told = Condition.of(condition)
        label = None if told.label is None else self._classes(told.label, num)
        if prompt is None and told.text is None:
            return label
        if not self.model.text:
            asked = "a text" if prompt is None else f"--prompt={prompt!r}"
            name = self.config["model"]["name"]
            raise UserError(
                f"{asked}: this run of model.name={name!r} was trained without text (model.text=True, on a set with "
                "captions)."
            )
        return Condition(label, jnp.asarray(told.text if prompt is None else self._words(prompt, num)))

    def _words(self, prompt: str | Sequence[str], num: int) -> Int[np.ndarray, "N T"]:
        asked = [prompt] * num if isinstance(prompt, str) else list(prompt)
        if len(asked) != num:
            raise UserError(f"prompt={prompt!r} must be one text, or one for each of {num} samples.")
        return text.prompts(asked, self.spec.vocabulary)

    def _classes(self, condition: Any, num: int) -> Int[Array, "N"]:
        labels, known = np.asarray(condition), self.model.classes
        if not np.issubdtype(labels.dtype, np.integer) or labels.shape not in ((), (num,)):
            raise UserError(f"condition={condition!r} must be one class, or one for each of {num} samples.")
        if not known:
            name = self.config["model"]["name"]
            raise UserError(f"--label={condition}: this run of model.name={name!r} was trained without classes.")
        if labels.size and not 0 <= labels.min() <= labels.max() < known:
            raise UserError(f"--label={condition} must lie in [0, {known}) (data.name={self.spec.name!r}).")
        return jnp.asarray(np.broadcast_to(labels, num), jnp.int32)

    def _check_options(self, options: Mapping[str, Any]) -> None:
        self._need("sample")
        unknown = options.keys() - inspect.signature(self.model.sample).parameters.keys()
        if unknown:
            family = self.config["model"]["name"]
            raise UserError(f"--{min(unknown)}: model.name={family!r} has no such sampling option.")

    def _seed(self, seed: int) -> int:
        if not 0 <= seed < 2**32:
            raise UserError(f"--seed={seed} must lie in [0, 2**32).")
        return seed

    def _need(self, function: str) -> None:
        if getattr(self.model, function) is None:
            raise UserError(
                f"model.name={self.config['model']['name']!r} cannot {function}: the family does not define it."
            )


def _averaged(workdir: Path, state: Any, average: str) -> Any:
    if average.startswith(posthoc_ema.POSTHOC):
        return posthoc_ema.reconstruct(workdir, state, average)
    return evaluate.view(state, average)


def _restore(store: checkpoint.Checkpoints, step: str | int, target: Any) -> Any:
    if str(step) == "latest":
        found = store.restore_newest(target)
        if found is None:
            raise UserError("--step=latest: the run has no checkpoint yet.")
        return found[0]
    if str(step) == "best":
        best = store.best_step()
        if best is None:
            raise UserError("--step=best: no checkpoint was judged; checkpoint.best_metric and eval.every decide that.")
        step = best
    if not str(step).isdigit():
        raise UserError(f"--step={step} is not known. Allowed: latest, best, {store.steps()}.")
    try:
        return store.restore(int(step), target)[0]
    except checkpoint.DamagedCheckpoint as error:
        raise UserError(f"--step={step}: {error}.") from error


def _batch(model: Any, params: Any, extra: Any, batch: Any, context: Any) -> dict[str, Array]:
    return {name: batch[name] for name in ("x", "label", "index", "factors", "text") if name in batch}


def _codes(model: Any, params: Any, extra: Any, batch: Any, context: Any) -> dict[str, Array]:
    latent = model.encode(params, extra, batch["x"], context.keys("posterior"))
    rows = {name: value for name, value in latent.info.items() if value.shape[:1] == batch["x"].shape[:1]}
    known = {part: batch[part] for part in ("label", "index", "factors") if part in batch}
    return {"mean": latent.mean, "sample": latent.sample, **rows, **known}
