"""The work directory of one run while it trains: what is read from it and everything that is written into it.

Owns the config, provenance, logs, evaluations, pictures, checkpoints and failure bundles of one run. Knows neither how
the run is computed nor when anything is due: `train.py` says so, for one run or for several that train together. Where
several processes train one run, all of them call the same here, and the first one writes (hosts.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latent import checkpoint, config, evaluate, failure, hosts, posthoc_ema, provenance
from latent.build import Experiment
from latent.data.feed import Feed
from latent.evaluation_data import EvaluationData
from latent.logs import Logs, Timing
from latent.pictures import Gallery
from latent.tracking import WandbOptions
from latent.types import State


class WorkDirectory:
    """The files of one run. Nothing is written before `open`. `failure` says why a run was given up, else it is empty.

    `stream` gets what the run says of itself; None: standard output.
    """

    def __init__(
        self,
        experiment: Experiment,
        path: Path,
        data: EvaluationData,
        gallery: Gallery,
        stream: Any = None,
    ):
        self.experiment, self.path = experiment, path
        self.failure = ""
        self._data, self._gallery, self._stream = data, gallery, stream
        self.feed: Feed | None = None  # who trains makes it, from the state that it trains
        keep = experiment.config["checkpoint"]
        self.checkpoints = checkpoint.Checkpoints(path, keep["keep"], keep["best_metric"], keep["best_mode"])
        self._snapshots = posthoc_ema.Snapshots(path)
        self._logs: Logs | None = None
        self._evaluated: tuple[int, dict[str, float]] = (-1, {})

    def restored(self, sharding: Any, at: int | None = None) -> State | None:
        """The state of the newest readable checkpoint; damaged ones are set aside. None where there is none.

        With `at` the run first goes back to that step, where it has a good checkpoint of it or it is 0.
        """
        if not self.checkpoints.steps():
            return None
        target = checkpoint.abstract(self.experiment.abstract_state(), sharding)
        if at is not None:
            self.checkpoints.go_back(at, target)
        found = self.checkpoints.restore_newest(target, repair=True)
        return None if found is None else found[0]

    def open(self, step: int, devices: Sequence[Any]) -> None:
        """From here on the run writes: config and provenance first, then the logs, cut after `step`."""
        if not hosts.leads():
            return
        settings = self.experiment.config
        config.write(settings, self.path)
        provenance.write(self.path, self.experiment, devices)
        options = WandbOptions(
            mode=settings["log"]["wandb"],
            project=settings["log"]["project"],
            group=settings["log"]["group"],
            name=self.path.name,
        )
        self._logs = Logs(
            self.path,
            config=settings,
            total_steps=settings["train"]["steps"],
            start_step=step,
            batch_size=settings["train"]["batch_size"],
            wandb=options,
            stream=self._stream,
        )

    def close(self, code: int) -> None:
        """Waits until everything is written."""
        try:
            self.checkpoints.close()
            self._snapshots.close()
        finally:
            if self._logs is not None:
                self._logs.close(code)

    def message(self, text: str) -> None:
        """A line for the user."""
        if self._logs is not None:
            self._logs.message(text)

    def advance(self, step: int) -> None:
        """Moves the live bar."""
        if self._logs is not None:
            self._logs.advance(step)

    def finite(self, state: State) -> bool:
        """Whether the run still trains. Where values stopped being finite it writes the bundle and gives the run up."""
        if int(state.halted) < 0:
            return True
        bundle, bad = failure.write(self.path, self.experiment, state)
        self.failure = f"step {int(state.step)}: {bad} is not finite. Replay: --replay={bundle}"
        return False

    def evaluate(self, step: int, state: State) -> None:
        """The config's metrics, with the weights it asks for, and pictures."""
        settings = self.experiment.config["eval"]
        state = hosts.near(evaluate.view(state, settings["average"])._replace(opt={}, ema={}))
        results = evaluate.run(settings["metrics"], state, self._data, settings["options"])
        self._evaluated = (step, hosts.leading(evaluate.best_of(results)))
        if self._logs is None:
            return
        if results:
            evaluate.record(self.path, step, results, provenance.of_result(self.experiment, step))
            self._logs.evaluation(step, settings["split"], self._evaluated[1])
        self._logs.pictures(step, lambda: self._gallery.draw(state))

    def log(self, step: int, metrics: Mapping[str, Any], timing: Timing) -> None:
        """One line of training metrics, {player: {term: value}}."""
        if self._logs is not None:
            self._logs.train(step, flat(metrics), timing=timing)

    def save(self, step: int, state: State) -> None:
        """A checkpoint, in the background, judged by the evaluation of the same step where there was one."""
        metrics = self._evaluated[1] if self._evaluated[0] == step else {}
        self.checkpoints.save(state, {"step": step}, metrics)

    def snapshot(self, state: State) -> None:
        """A snapshot of the power-function averages, in the background."""
        self._snapshots.save(state)


def directories(
    siblings: Sequence[Experiment], paths: Sequence[Path], split: Any, streams: Sequence[Any] = ()
) -> list[WorkDirectory]:
    """The work directories of experiments that differ in seed and hparams; they share what is compiled for evaluation.

    `split` is the sharding of a batch in evaluation.
    """
    settings = siblings[0].config
    data = siblings[0].evaluation_data(settings["eval"]["split"], settings["seed"], settings["eval"]["average"], split)
    gallery = Gallery(siblings[0].recipe.model, siblings[0].spec, data, settings["log"]["images"])
    found = []
    for experiment, path, stream in zip(siblings, paths, streams or [None] * len(paths), strict=True):
        mine = data.reseeded(experiment.config["seed"])
        found.append(WorkDirectory(experiment, path, mine, gallery.over(mine), stream))
    return found


def flat(metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """{player: {term: value}} -> {"player/term": value}; a player that did not move is left out."""
    return {
        f"{player}/{term}": float(value)
        for player, terms in metrics.items()
        if terms["moved"] > 0
        for term, value in terms.items()
        if term != "moved"
    }
