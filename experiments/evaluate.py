"""Evaluates a run's checkpoint: prints a table and adds it to WORKDIR/evaluation/STEP.json.

python -m experiments.evaluate --workdir=runs/vae --metrics=elbo,iwae --options=iwae.num_samples=500
python -m experiments.evaluate --workdir=runs/ddpm --metrics=label_agreement --guidance=2 --sampler=dpmpp_2m --steps=20
"""

from __future__ import annotations

from absl import flags

from experiments import command_line, sampling

WORKDIR = flags.DEFINE_string("workdir", None, "A run.")
STEP = flags.DEFINE_string("step", "latest", "latest, best or a number.")
METRICS = flags.DEFINE_list("metrics", [], "Names of latent/metrics; default: those of the run's config.")
SPLIT = flags.DEFINE_string("split", "test", "train, validation or test.")
OPTIONS = flags.DEFINE_string("options", "", "metric.option=value,... over the config's eval.options.")
AVERAGE = flags.DEFINE_string("average", None, "Averaged weights by name; '' for the raw ones; default: the config's.")


def main() -> int:
    """Returns the exit code."""
    import latent
    from latent import evaluate

    options = command_line.parse_options(OPTIONS.value)
    run = sampling.applied(latent.load(WORKDIR.value, STEP.value, AVERAGE.value))
    results = run.evaluate(METRICS.value, SPLIT.value, options)
    print(f"{run.workdir}: {run.experiment.duration(run.step)}")
    print(evaluate.table(results))
    return 0


if __name__ == "__main__":
    command_line.run(main, required=["workdir"])
