"""Populations: every member is the run it would have been alone, whatever it trained beside (latent/population.py)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import latent
from latent import build, checkpoint, config, failure, logs, memory, parallel, provenance, workdir
from latent import population as members
from latent.errors import UserError
from latent.step import build_step, init_state
from latent.sweeps import axes, plan, progress
from latent.sweeps.launchers import population
from latent.sweeps.launchers.options import Options
from latent.train import Training, train
from tests import harness, toys
from tests.harness import digests, lines, states

ROOT = Path(__file__).parent.parent
QUIET = harness.QUIET | {"log.wandb": "disabled", "parallel.devices": 2}
VAE = "configs/vae.py:tiny"


@pytest.fixture(autouse=True)
def root(monkeypatch):
    monkeypatch.chdir(ROOT)


def sweep(directory, path=VAE, fixed=None, options=None, **words):
    """Plans a sweep and launches it as a population; returns (exit code, plan)."""
    swept = plan.make(path, directory, fixed or {}, axes.parse(**words))
    waiting = [member for member in swept.members if not progress.finished(swept, member)]
    return population.launch(swept, waiting, options or Options()), swept


def alone(swept, member, directory):
    """Trains a member as `experiments.train` does, on one device."""
    settings = plan.make_member(swept, member.overrides)[1]
    settings["parallel"]["devices"] = 1
    return train(settings, directory)


def assert_close(one, two, atol, rtol=0):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=atol, rtol=rtol), one, two)


# The step ------------------------------------------------------------------------------------------------------


def stacked(model, count, averages=(0.9,)):
    """(recipe, axes, members' states, the stacked state) of toys with a seed and a rate each."""
    recipe, batch = harness.recipe(model, averages=averages), {"x": jnp.asarray(toys.data()[:1])}
    create = jax.jit(lambda seed, rate: init_state(recipe, harness.hparams(model, rate), seed, batch))
    alone = [jax.device_get(create(np.uint32(seed), 0.02 * (seed + 1))) for seed in range(count)]
    which = members.axes(alone[0], model.loads)
    return recipe, which, alone, members.stack(which, alone)


@pytest.mark.parametrize(
    ("mapped", "phase"),
    [(True, None), (False, 0), *(pytest.param(*case, marks=pytest.mark.slow) for case in [(True, 0), (False, None)])],
)
def test_one_step_of_all_is_a_step_of_each(mapped, phase):
    """Own seed, own batch, own rate; a player with a period, resolved by cond (phase None) and while tracing."""
    model = toys.adversarial(every=2)
    recipe, which, alone, together = stacked(model, 3)
    step = build_step(recipe)
    x = np.stack([toys.data()[16 * number : 16 * number + 16] for number in range(3)])
    position = np.tile(np.arange(16, dtype=np.int32), (3, 1))
    seeds = np.arange(3, dtype=np.uint32)
    lifted = jax.jit(lambda *arguments: members.lift(which, mapped)(step)(*arguments, phase))
    new, metrics = lifted(together, seeds, {"x": x, "position": position})
    assert new.step.shape == () and new.step == 1
    for number in range(3):
        raw = {"x": x[number], "position": position[number]}
        expected, values = jax.jit(lambda *arguments: step(*arguments, phase))(alone[number], seeds[number], raw)
        assert_close(members.member(which, jax.device_get(new), number), jax.device_get(expected), 1e-6)
        assert_close(members.take(metrics, number), values, 1e-5)


def test_a_shared_step_keeps_cond_a_branch():
    """Where the step had an axis of members, vmap would turn cond into a select and run both branches."""
    model = toys.adversarial(every=2)
    recipe, which, _, together = stacked(model, 2)
    batch = {"x": np.zeros((2, 16, toys.DIM), np.float32), "position": np.zeros((2, 16), np.int32)}
    text = str(jax.make_jaxpr(members.lift(which, True)(build_step(recipe)))(together, np.zeros(2, np.uint32), batch))
    assert "cond[" in text


def test_a_halted_member_stays_and_the_others_go_on():
    model = toys.adversarial(every=1)
    poisoned = model.players[0]

    def loss(params, extra, batch, context):
        found = poisoned.loss(params, extra, batch, context)
        bad = (context.step >= 2) & (context.hparams["critic"]["learning_rate"] > 0.03)  # member 1 alone
        return found._replace(objective=jnp.where(bad, jnp.nan, found.objective))

    model = model._replace(players=(poisoned._replace(loss=loss), *model.players[1:]))
    recipe, which, _, state = stacked(model, 2)
    step = jax.jit(members.lift(which, True)(build_step(recipe)))
    batch = {"x": np.stack([toys.data()[:16]] * 2), "position": np.tile(np.arange(16, dtype=np.int32), (2, 1))}
    history = [jax.device_get(state)]
    for _ in range(4):
        state, _ = step(state, np.arange(2, dtype=np.uint32), batch)
        history.append(jax.device_get(state))
    healthy, halted = (members.member(which, history[4], number) for number in range(2))
    assert history[4].step == 4 and healthy.step == 4 and healthy.halted == -1
    assert halted.step == 2 and halted.halted == 2
    kept = members.member(which, history[2], 1)
    assert_close(halted._replace(halted=kept.halted), kept, 0)
    assert not np.array_equal(healthy.params["critic"]["w"], members.member(which, history[3], 0).params["critic"]["w"])


# Equal to single runs ------------------------------------------------------------------------------------------

FAMILIES = {
    "autoencoder": ("vae", {"model.rate": "free_bits"}, "autoencoder.beta=0.5,2", True),
    "two players": ("gan", {}, "critic.r1=0.05,0.2", True),
    "a frozen first stage": ("latent_ddpm", {"model.net.name": "residual_mlp", "model.net.self_conditioning": False},
                             "denoiser.label_dropout=0,0.5", True),
    "convolutions": ("classifier", {}, "classifier.learning_rate=0.05,0.01", False),
}  # fmt: skip

WITH_SGD = """
from configs import base, FAMILY

def get_config():
    config = FAMILY.get_config("tiny")
    for player in config.optimizer:
        config.optimizer[player] = base.optimizer("sgd")
        config.hparams[player].learning_rate = 1e-3
    return config
"""


@pytest.fixture(scope="module")
def first_stage(tmp_path_factory):
    directory = tmp_path_factory.mktemp("stage") / "vae"
    assert train(config.load(str(ROOT / "configs/vae.py:tiny"), QUIET).to_dict(), directory) == 0
    return directory


QUICK = ("autoencoder",)


@pytest.mark.parametrize(
    ("family", "changes", "varied", "mapped"),
    [pytest.param(*FAMILIES[name], id=name, marks=() if name in QUICK else pytest.mark.slow) for name in FAMILIES],
)
def test_a_member_is_the_run_it_would_have_been_alone(
    tmp_path, monkeypatch, first_stage, family, changes, varied, mapped
):
    """Four members of two seeds and two hparams on three devices, of which one holds a copy: 5 SGD steps to 1e-5, the
    losses of 20 steps to 1e-4. Convolutions are unrolled on CPU, everything else is mapped."""
    chosen, original = [], parallel.population
    monkeypatch.setattr(parallel, "population", lambda *given: chosen.append(given[-1]) or original(*given))
    fixed = {**QUIET, **changes, "train.steps": 20, "log.every": 1, "checkpoint.every": 5, "checkpoint.keep": 4}
    fixed |= {"parallel.devices": 3, "train.batch_size": 15}
    if family == "latent_ddpm":
        fixed["model.first_stage"] = str(first_stage)
    path = tmp_path / "with_sgd.py"
    path.write_text(WITH_SGD.replace("FAMILY", family))
    code, swept = sweep(tmp_path / "pop", str(path), fixed, grid=[f"hparams.{varied}"], seeds=2)
    assert code == 0 and len(swept.members) == 4 and chosen == [mapped]
    for member in (swept.members[0], swept.members[3]):
        assert alone(swept, member, tmp_path / member.name) == 0
        mine, own = swept.directory(member), tmp_path / member.name
        assert_close(states(mine)[5], states(own)[5], 1e-5)
        assert len(lines(own)) == 20
        for a, b in zip(lines(mine), lines(own), strict=True):
            assert a.keys() == b.keys()
            for key in a.keys() - {"split"}:
                np.testing.assert_allclose(a[key], b[key], rtol=1e-4, atol=1e-6)
    ends = [states(swept.directory(member))[20].params for member in swept.members]
    assert len({checkpoint.digest(params) for params in ends}) == 4, "members must differ"
    if "model.first_stage" in fixed:
        frozen = checkpoint.digest(latent.load(first_stage).state.params)
        assert {checkpoint.digest(params["first_stage"]) for params in ends} == {frozen}


# Work directories ----------------------------------------------------------------------------------------------


def listing(directory):
    """What lies in a work directory, without the arrays' own file names."""
    found = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}
    return {name for name in found if "/state/" not in name and "/packed/" not in name} - {progress.OUTPUT}


@pytest.mark.slow
def test_the_work_directory_is_that_of_an_ordinary_run(tmp_path):
    code, swept = sweep(tmp_path / "pop", fixed={"parallel.devices": 2}, seeds=2)
    member = swept.members[1]
    mine, own = swept.directory(member), tmp_path / "own"
    assert code == 0 and alone(swept, member, own) == 0
    assert listing(mine) == listing(own)
    settings = config.read(own)
    settings["parallel"]["devices"] = 2
    assert config.read(mine) == settings
    for name, form in (("provenance.json", lambda row: set(row)), ("evaluation/4.json", lambda row: row["protocol"])):
        a, b = (json.loads((directory / name).read_text()) for directory in (mine, own))
        assert [form(row) for row in a] == [form(row) for row in b]
    for split in ("train", "validation"):
        for a, b in zip(lines(mine, split), lines(own, split), strict=True):
            assert a.keys() == b.keys()
            np.testing.assert_allclose([a[key] for key in a if key != "split"], [b[key] for key in a if key != "split"],
                                       rtol=1e-4)  # fmt: skip
    run = latent.load(mine)
    logged = lines(mine, "validation")[-1]
    for result in run.evaluate(split="validation"):
        assert result.value == pytest.approx(logged[result.name], rel=1e-5)
    assert (mine / progress.OUTPUT).read_text().count("step 4/4") == 2


@pytest.mark.slow
def test_members_go_on_alone_and_single_runs_go_on_together(tmp_path, capsys):
    fixed = {**QUIET, "optimizer.autoencoder.schedule.horizon": 8}
    whole, swept = sweep(tmp_path / "whole", fixed={**fixed, "train.steps": 8}, seeds=2)
    half, _ = sweep(tmp_path / "parts", fixed={**fixed, "train.steps": 4}, seeds=2)
    assert whole == half == 0
    first = swept.members[0]
    settings = plan.make_member(swept._replace(fixed={**swept.fixed, "log.group": "parts"}), first.overrides)[1]
    assert train(settings, tmp_path / "parts" / first.name) == 0
    code, swept = sweep(tmp_path / "parts", fixed={**fixed, "train.steps": 8}, seeds=2)
    assert code == 0 and "started   seed=0" not in capsys.readouterr().out.split("2 of 2 finished")[-2]
    for member in swept.members:
        one, two = (states(tmp_path / name / member.name)[8] for name in ("whole", "parts"))
        assert_close(one, two, 1e-6, 1e-6)


# Going on ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_states_leave_the_devices_only_where_one_is_due(tmp_path, monkeypatch):
    copied, original = [], members.member
    monkeypatch.setattr(members, "member", lambda *given: copied.append(int(given[1].step)) or original(*given))
    assert sweep(tmp_path, fixed={**QUIET, "log.every": 1, "checkpoint.every": 2}, seeds=2)[0] == 0
    assert copied == [2, 2, 4, 4], "once each for evaluation and checkpoint together, never for a line of metrics"


@pytest.mark.slow
def test_members_share_every_program_of_evaluation(tmp_path, monkeypatch):
    made, original = [], workdir.directories
    monkeypatch.setattr(workdir, "directories", lambda *given: made.extend(original(*given)) or made)
    assert sweep(tmp_path, fixed={"log.wandb": "disabled", "log.images": 2}, seeds=3)[0] == 0
    compiled = made[0]._data._compiled
    assert len(made) == 3 and all(run._data._compiled is compiled for run in made)
    assert compiled and {program._cache_size() for program in compiled.values()} == {1}
    assert made[0]._gallery._decode_encoded._cache_size() == 1


@pytest.mark.slow
def test_stopping_and_going_on_is_exact(tmp_path, capsys):
    """8 steps in one go, or 4, then 8: bit for bit, averages and optimiser included; what is finished is left alone."""
    fixed = {"log.images": 0, "optimizer.autoencoder.schedule.horizon": 8, "parallel.devices": 2}
    words = {"seeds": 3, "grid": ["hparams.autoencoder.beta=1"]}
    assert sweep(tmp_path / "whole", fixed={**fixed, "train.steps": 8}, **words)[0] == 0
    assert sweep(tmp_path / "parts", fixed={**fixed, "train.steps": 4}, **words)[0] == 0
    code, swept = sweep(tmp_path / "parts", fixed={**fixed, "train.steps": 8}, **words)
    assert code == 0
    for member in swept.members:
        one, two = tmp_path / "whole" / member.name, tmp_path / "parts" / member.name
        assert digests(one)[8] == digests(two)[8]
        assert lines(one) == lines(two) and lines(one, "validation") == lines(two, "validation")
    capsys.readouterr()
    assert sweep(tmp_path / "parts", fixed={**fixed, "train.steps": 8}, **words)[0] == 0
    assert "started" not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("behind", [0, 2])
def test_after_a_kill_between_checkpoints_those_ahead_go_back(tmp_path, behind):
    """One member of three is a checkpoint behind, the first or a later one: all go on from there, to the same bits."""
    fixed = {**QUIET, "train.steps": 6, "checkpoint.keep": 3}
    code, swept = sweep(tmp_path, fixed=fixed, seeds=3)
    assert code == 0
    ends = {
        member.name: (digests(tmp_path / member.name)[6], lines(tmp_path / member.name)) for member in swept.members
    }
    for number, member in enumerate(swept.members):
        for found in (tmp_path / member.name / "checkpoints").iterdir():
            if int(found.name) > behind + 2 * (number != 1):
                shutil.rmtree(found)
    assert sweep(tmp_path, fixed=fixed, seeds=3)[0] == 0
    for name, end in ends.items():
        assert (digests(tmp_path / name)[6], lines(tmp_path / name)) == end
        starts = json.loads((tmp_path / name / "provenance.json").read_text())
        assert len(starts) == 2, "all of them in one go"


@pytest.mark.slow
def test_new_members_do_not_hold_up_those_that_have_begun(tmp_path):
    fixed = {**QUIET, "train.steps": 4, "optimizer.autoencoder.schedule.horizon": 8, "checkpoint.every": 4}
    assert sweep(tmp_path, fixed=fixed, seeds=1)[0] == 0
    code, swept = sweep(tmp_path, fixed={**fixed, "train.steps": 8}, seeds=2)
    assert code == 0 and [line["step"] for line in lines(tmp_path / "seed=1")] == [2, 4, 6, 8]
    assert list(states(tmp_path / "seed=0")) == [4, 8] and swept.members[1].name == "seed=1"
    assert len(json.loads((tmp_path / "seed=0" / "provenance.json").read_text())) == 2


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_signal_saves_every_member(tmp_path, capsys, number):
    fixed = {**QUIET, "train.steps": 1_000_000, "log.every": 100, "checkpoint.every": 0}

    def interrupt():
        first = tmp_path / "pop" / "seed=0" / logs.FILE
        while not (first.exists() and first.stat().st_size):
            threading.Event().wait(0.02)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt, daemon=True).start()
    code, swept = sweep(tmp_path / "pop", fixed=fixed, seeds=2, options=Options(jobs=2))
    assert code == 128 + number
    reached = {tuple(states(swept.directory(member))) for member in swept.members}
    assert len(reached) == 1 and 0 < next(iter(reached))[0] < 1_000_000
    assert capsys.readouterr().out.count("stopped   seed=") == 2


@pytest.mark.slow
def test_a_damaged_checkpoint_costs_its_member_the_steps_since(tmp_path):
    fixed = {**QUIET, "train.steps": 4, "optimizer.autoencoder.schedule.horizon": 8}
    assert sweep(tmp_path, fixed=fixed, seeds=3)[0] == 0
    for file in (tmp_path / "seed=1" / "checkpoints" / "4").rglob("*"):
        if file.is_file() and "/d/" in str(file):
            file.write_bytes(b"")
    code, swept = sweep(tmp_path, fixed={**fixed, "train.steps": 8}, seeds=3)
    assert code == 0 and all(progress.finished(swept, member) for member in swept.members)
    assert (tmp_path / "seed=1" / "checkpoints" / "damaged.4").is_dir()
    assert [line["step"] for line in lines(tmp_path / "seed=1")] == [2, 4, 6, 8]


# Failures ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_member_that_is_not_finite_is_frozen_and_reported(tmp_path, capsys):
    fixed = {**QUIET, "train.steps": 40, "log.every": 4, "optimizer.autoencoder.name": "sgd"}
    grid = ["hparams.autoencoder.learning_rate=1e-4,1e30"]
    code, swept = sweep(tmp_path / "pop", fixed=fixed, grid=grid)
    good, bad = (swept.directory(member) for member in swept.members)
    text = capsys.readouterr().out
    assert code == 1 and "failed    learning_rate=1e+30" in text and "1 of 2 finished, 1 failed" in text
    (bundle,) = bad.glob("failure-*")
    assert f"--replay={bundle}" in text and f"--replay={bundle}" in progress.last_words(bad)
    record = json.loads((bundle / "failure.json").read_text())
    first, report = failure.replay(bundle)
    assert first == record["first_bad"] and not report[first] and record["config"]["hparams"] != {}
    assert all(step <= record["step"] for step in states(bad)) and set(states(good)) >= {40}
    assert alone(swept, swept.members[0], tmp_path / "own") == 0
    assert_close(states(good)[40], states(tmp_path / "own")[40], 1e-4)
    capsys.readouterr()
    assert sweep(tmp_path / "pop", fixed=fixed, grid=grid)[0] == 1  # again: it alone, and it fails again
    text = capsys.readouterr().out
    assert "started   learning_rate=0.0001" not in text and "started   learning_rate=1e+30" in text


@pytest.mark.slow
def test_a_directory_in_use_fails_its_member_alone(tmp_path, capsys):
    with provenance.claimed(tmp_path / "seed=0"):
        code, _ = sweep(tmp_path, fixed=QUIET, seeds=2)
    text = capsys.readouterr().out
    assert code == 1 and "another process" in text and "1 of 2 finished, 1 failed" in text


def test_an_optimiser_with_a_rate_of_its_own_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"optimizer.autoencoder.name='prodigy' sets its own rate"):
        sweep(tmp_path / "pop", fixed={"optimizer.autoencoder.name": "prodigy"}, seeds=2)
    assert not (tmp_path / "pop").exists()


# Populations and their parts -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_differs_otherwise_makes_populations_of_its_own(tmp_path, capsys):
    words = {"grid": ["model.latent_dim=2,3", "hparams.autoencoder.beta=0.5,1"], "seeds": 2}
    swept = plan.make(VAE, tmp_path, QUIET, axes.parse(**words))
    found = population.group(swept, swept.members)
    assert [len(each.members) for each in found] == [4, 4]
    for each in found:
        assert len({member.overrides["model.latent_dim"] for member in each.members}) == 1
        betas = [experiment.hparams["autoencoder"]["beta"] for experiment in each.siblings]
        assert betas == [member.overrides["hparams.autoencoder.beta"] for member in each.members]
        assert len({id(experiment.recipe) for experiment in each.siblings}) == 1
    assert population.launch(swept, swept.members, Options(dry_run=True)) == 0
    assert not any(tmp_path.iterdir()) and capsys.readouterr().err.count("a population of 4") == 2
    assert sweep(tmp_path, fixed=QUIET, **words)[0] == 0


@pytest.mark.slow
def test_a_population_is_split_into_parts_that_fit(tmp_path, monkeypatch, capsys):
    """Memory for the data and half of what XLA says five members need on one device: parts, and the same members."""
    asked, original = [], memory.needed
    monkeypatch.setattr(memory, "needed", lambda analysis: asked.append(original(analysis)) or asked[-1])
    fixed = {**QUIET, "parallel.devices": 1}
    assert sweep(tmp_path / "whole", fixed=fixed, seeds=5)[0] == 0
    built = build.build(config.read(tmp_path / "whole" / "seed=0"))
    data = memory.size(built.feed(built.abstract_state()).resident)
    budget = (asked[0] + data) // 2
    monkeypatch.setattr(memory, "budget", lambda devices: budget)
    capsys.readouterr()
    code, swept = sweep(tmp_path / "parts", fixed=fixed, seeds=5)
    assert code == 0 and "5 members would take" in capsys.readouterr().out
    assert len(asked) >= 1 + 3 and max(asked[2:]) <= budget
    for member in swept.members:
        one, two = (states(tmp_path / name / member.name)[4] for name in ("whole", "parts"))
        assert_close(one.params, two.params, 1e-5)


@pytest.mark.slow
def test_memory_is_estimated_by_the_compiler(tmp_path):
    """Twice the members take twice the memory, but for the data, which all share."""

    def needed(count):
        experiment = build.build(build.resolved(config.load("configs/vae.py:digits", QUIET).to_dict()))
        siblings = [build.sibling(experiment, {**experiment.config, "seed": seed}) for seed in range(count)]
        abstract = experiment.abstract_state()
        driver = parallel.population(1, count, abstract, (), build.rollable(experiment))
        runs = workdir.directories(siblings, [tmp_path / str(seed) for seed in range(count)], driver.split)
        training = Training(driver, runs, build.initial_states(siblings, driver.replicated))
        taken = memory.needed(training.compile_ahead()) - memory.size(training.resident)
        assert taken > count * memory.size(abstract)
        return taken

    assert needed(8) / needed(4) == pytest.approx(2, rel=0.2)


def test_members_heed_train_deterministic_as_single_runs_do(tmp_path, monkeypatch):
    before = os.environ.get("XLA_FLAGS", "")
    monkeypatch.setenv("XLA_FLAGS", before)  # and put back afterwards
    swept = plan.make(VAE, tmp_path, {"train.deterministic": True}, axes.parse(seeds=2))
    population.group(swept, swept.members)
    assert os.environ["XLA_FLAGS"] == f"{before} --xla_gpu_deterministic_ops=true"  # once, for both of them


@pytest.mark.parametrize(
    ("count", "devices", "used", "crowd"), [(1, 8, 1, 1), (3, 8, 3, 1), (9, 8, 5, 2), (5, 2, 2, 3)]
)
def test_no_more_devices_than_shorten_the_work(count, devices, used, crowd):
    state = stacked(toys.adversarial(), 1)[2][0]
    driver = parallel.population(devices, count, state, (), True)
    assert len(driver.devices) == used and driver.crowd == crowd
    joined = driver.join([state._replace(halted=np.int32(number)) for number in range(count)])
    assert joined.step.shape == () and joined.halted.shape == (used * crowd,)
    assert [int(part.halted) for part in driver.part(joined)] == list(range(count))
