"""The commands as a user meets them: exit codes, messages, files (design: exit 2 names key, value, what is allowed)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments import command_line
from latent.data import dataset
from latent.errors import UserError

ROOT = Path(__file__).parent.parent

# One interpreter that imports once and forks for every command line: a dozen fresh starts would take a minute.
FORKS = """
import importlib, io, json, os, sys
import latent.train, latent.run, latent.dry_run, latent.failure, latent.models.vae, latent.nets.mlp, latent.nets.convnet
results = []
for module, *arguments in json.load(sys.stdin):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        for number in (1, 2):
            os.dup2(writer, number)
        sys.argv = [module, *arguments]
        from experiments import command_line
        code = 1
        try:
            command_line.run(importlib.import_module(f"experiments.{module}").main, required=REQUIRED[module])
        except SystemExit as exit:
            code = exit.code or 0
        except BaseException:
            import traceback
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    os.close(writer)
    text = os.fdopen(reader).read()
    results.append([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text])
print(json.dumps(results))
"""
REQUIRED = {
    "train": [],
    "evaluate": ["workdir"],
    "sample": ["workdir", "out"],
    "encode": ["workdir", "out"],
    "analyze": ["workdir"],
}


def run_all(command_lines):
    program = f"REQUIRED = {REQUIRED!r}\n" + FORKS
    environment = dict(os.environ)
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=json.dumps(command_lines),
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


CONFIG = "--config=configs/vae.py:tiny"


def train(*words):
    return ["train", CONFIG, "--workdir=WORKDIR", *words]


BAD = {
    "unknown flag": (["train", CONFIG, "--workdr=x"], ["workdr"]),
    "stray word": (["train", CONFIG, "tiny"], ["tiny"]),
    "no config": (["train", "--workdir=WORKDIR"], ["--config is required"]),
    "no workdir": (["train", CONFIG], ["--workdir is required"]),
    "unknown config file": (["train", "--config=configs/vea.py", "--workdir=WORKDIR"], ["configs/vea.py"]),
    "unknown variant": (["train", "--config=configs/vae.py:tinny", "--workdir=WORKDIR"], ["tinny", "tiny"]),
    "unknown key": (
        train("--config.model.latent_dims=3"),
        ["latent_dims", "latent_dim"],
    ),
    "wrong type": (train("--config.model.latent_dim=three"), ["latent_dim", "three"]),
    "float for int": (train("--config.train.steps=1e3"), ["train.steps", "1e3"]),
    "unread key": (train("--config.model.capacity_steps=3"), ["model.capacity_steps"]),
    "unknown data": (train("--config.data.name=digit"), ["digit", "digits"]),
    "unknown model": (train("--config.model.name=vea"), ["vea", "vae"]),
    "unknown net": (train("--config.model.net.name=mpl"), ["mpl", "mlp"]),
    "latent_dim 0": (train("--config.model.latent_dim=0"), ["model.latent_dim=0"]),
    "no steps": (train("--config.train.steps=0"), ["train.steps=0"]),
    "negative batch": (train("--config.train.batch_size=-8"), ["train.batch_size=-8"]),
    "huge batch": (train("--config.train.batch_size=8000"), ["train.batch_size=8000"]),
    "indivisible": (
        train("--config.train.batch_size=12"),
        ["train.batch_size=12", "8"],
    ),
    "too many devices": (
        train("--config.parallel.devices=9"),
        ["parallel.devices=9", "8"],
    ),
    "uneven microbatches": (train("--config.train.microbatches=4"), ["train.batch_size=16", "train.microbatches=4"]),
    "empty workdir": (["train", CONFIG, "--workdir="], ["--workdir is required"]),
    "config of another kind": (["train", "--config=README.md", "--workdir=WORKDIR"], ["README.md"]),
    "base config": (["train", "--config=configs/base.py", "--workdir=WORKDIR"], ["selects no model"]),
    "override without value": (["train", CONFIG, "--config.seed", "--workdir=WORKDIR"], ["--config.seed"]),
    "deep workdir": (["train", CONFIG, "--workdir=WORKDIR/a/b", "--config.model.latent_dim=0"], ["latent_dim=0"]),
    "bad metric option": (train("--config.eval.options.iwae.chunk=3"), ["iwae.chunk=3"]),
    "negative limit": (train("--config.eval.options.iwae.limit=-5"), ["iwae.limit=-5"]),
    "negative clip": (train("--config.optimizer.autoencoder.clip_norm=-1"), ["clip_norm=-1"]),
    "negative ramp": (train("--config.model.kl_warmup_steps=-5"), ["kl_warmup_steps=-5"]),
    "zero width": (train("--config.model.net.hidden=0"), ["model.net.hidden=(0,)"]),
    "words for widths": (train("--config.model.net.hidden=a,b"), ["model.net.hidden=('a', 'b')"]),
    "negative pictures": (train("--config.log.images=-1"), ["log.images=-1"]),
    "unknown wandb": (train("--config.log.wandb=ofline"), ["log.wandb='ofline'", "offline"]),
    "optimiser option": (train("--config.optimizer.autoencoder.options.b3=0.5"), ["b3"]),
    "unknown driver": (train("--config.parallel.driver=pmop"), ["pmop", "pmap"]),
    "image too small": (
        [
            "train",
            CONFIG,
            "--workdir=WORKDIR",
            "--config.model.net.name=convnet",
            "--config.model.net.channels=4,4,4,4",
        ],
        ["model.net.channels", "8x8"],
    ),
    "uneven dispatch": (
        train("--config.train.steps_per_dispatch=3"),
        ["train.steps_per_dispatch=3"],
    ),
    "unknown best metric": (
        train("--config.checkpoint.best_metric=elbow"),
        ["checkpoint.best_metric", "elbow"],
    ),
    "unwritable": (["train", CONFIG, "--workdir=/dev/null/run"], ["--workdir=/dev/null/run"]),
    "no bundle": (["train", "--replay=WORKDIR"], ["--replay"]),
    "evaluate nothing": (["evaluate", "--workdir=WORKDIR"], ["holds no run"]),
    "evaluate where": (["evaluate"], ["--workdir is required"]),
    "sample to a text": (["sample", "--workdir=WORKDIR", "--out=x.txt"], ["--out=x.txt"]),
    "sample none": (["sample", "--workdir=WORKDIR", "--out=x.png", "--num=0"], ["--num=0"]),
    "analyze nothing": (["analyze", "--workdir=WORKDIR"], ["holds no run"]),
    "encode nowhere": (["encode", "--workdir=WORKDIR", "--out=/nowhere/x.npz"], ["/nowhere/x.npz"]),
}


def test_what_a_user_gets_wrong_exits_2_and_writes_nothing(tmp_path):
    places = [tmp_path / name.replace(" ", "_") for name in BAD]
    filled = [
        [word.replace("WORKDIR", str(place)) for word in words]
        for place, (words, _) in zip(places, BAD.values(), strict=True)
    ]
    for (name, (_, expected)), (code, text) in zip(BAD.items(), run_all(filled), strict=True):
        assert code == 2, (name, code, text)
        assert all(word in text for word in expected), (name, text)
        assert text.startswith("error: ") and len(text.splitlines()) <= 2 and "Traceback" not in text, (name, text)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    out = tmp_path_factory.mktemp("out")
    commands = [
        ["train", CONFIG, f"--workdir={workdir}"],
        ["train", CONFIG, f"--workdir={workdir}"],
        ["train", CONFIG, f"--workdir={workdir}", "--config.model.latent_dim=3"],
        ["train", CONFIG, f"--workdir={workdir}", "--config.train.steps=6"],
        ["evaluate", f"--workdir={workdir}", "--metrics=elbo,active_units"],
        ["evaluate", f"--workdir={workdir}", "--step=best", "--metrics=iwae", "--options=iwae.num_samples=8"],
        ["evaluate", f"--workdir={workdir}", "--metrics=elbow"],
        ["evaluate", f"--workdir={workdir}", "--step=5"],
        ["evaluate", f"--workdir={workdir}", "--split=tests"],
        ["evaluate", f"--workdir={workdir}", "--metrics=iwae", "--options=iwae.samples=8"],
        ["evaluate", f"--workdir={workdir}", "--average=0.9"],
        ["sample", f"--workdir={workdir}", "--num=9", f"--out={out}/a.png"],
        ["sample", f"--workdir={workdir}", "--num=5", f"--out={out}/b.npz"],
        ["sample", f"--workdir={workdir}", "--num=9", f"--out={out}/c.npz"],
        ["encode", f"--workdir={workdir}", f"--out={out}/codes.npz", f"--map={out}/map.png", "--projection=pca"],
        ["train", CONFIG, "--dry-run"],
        ["train", CONFIG, f"--workdir={out}/bad", "--config.hparams.autoencoder.learning_rate=1e30"],
        ["train", f"--replay={out}/bad/failure-1"],
        ["sample", f"--workdir={workdir}", f"--out={out}/d.png", "--seed=-1"],
        ["evaluate", f"--workdir={workdir}", "--metrics=iwae", "--options=iwae.num_samples=4.0"],
        ["train", CONFIG, f"--workdir={out}/options", "--config.optimizer.autoencoder.options.b1=0.5"],
        ["analyze", f"--workdir={workdir}", "--limit=30", "--sections=samples,statistics"],
        ["analyze", f"--workdir={workdir}", f"--out={out}/none", "--sections=maps"],
        ["analyze", f"--workdir={workdir}", f"--out={out}/none", "--limit=2"],
        ["analyze", f"--workdir={workdir}", f"--out={out}/none", "--split=tests"],
    ]
    return workdir, out, run_all(commands)


def test_the_same_command_continues_and_a_changed_one_is_refused(run_directory):
    _, _, results = run_directory
    assert [code for code, _ in results[:4]] == [0, 0, 2, 0], results[:4]
    assert "finished at step 4; nothing to do" in results[1][1]
    assert "model.latent_dim: 2 -> 3" in results[2][1]
    assert "finished at step 6" in results[3][1]


def test_evaluate_prints_and_records_with_passports(run_directory):
    workdir, _, results = run_directory
    (code, text), (best_code, best_text) = results[4], results[5]
    assert code == 0 and best_code == 0, (text, best_text)
    header, *rows = text.splitlines()[1:]
    assert "step 6 of 6, 0.1 epochs" in text.splitlines()[0]
    assert header.split()[:2] == ["metric", "value"] and [row.split()[0] for row in rows] == [
        "elbo",
        "kl",
        "active_units",
    ]
    assert "iwae_8" in best_text
    recorded = json.loads((workdir / "evaluation" / "6.json").read_text())
    elbo = next(row for row in recorded if row["name"] == "elbo" and row["protocol"]["split"] == "test")
    assert elbo["standard_error"] > 0 and elbo["unit"] == "nats"
    assert {"data", "data_sha256", "split", "N", "preprocessing", "weights", "samples"} <= elbo["protocol"].keys()
    assert elbo["protocol"]["data_sha256"] == dataset.load("digits").digests["test"]
    assert {"seed", "step", "config_sha256", "commit"} <= elbo["provenance"].keys()
    assert any(row["protocol"]["split"] == "validation" for row in recorded), "the loop's own numbers stay"


def test_bad_requests_to_evaluate_exit_2(run_directory):
    _, _, results = run_directory
    expected = (["elbow", "elbo"], ["--step=5"], ["tests", "test"], ["samples", "num_samples"], ["0.9", "0.999"])
    for (code, text), words in zip(results[6:11], expected, strict=True):
        assert code == 2 and all(word in text for word in words) and "Traceback" not in text, text


def test_sample_writes_pictures_and_arrays(run_directory):
    _, out, results = run_directory
    assert [code for code, _ in results[11:14]] == [0, 0, 0], results[11:14]
    assert Image.open(out / "a.png").size == (3 * (48 + 5) + 5,) * 2  # 8 pixels, six times, and the ground between
    few, many = np.load(out / "b.npz")["x"], np.load(out / "c.npz")["x"]
    assert few.shape == (5, 8, 8, 1)
    np.testing.assert_allclose(few, many[:5], atol=1e-6)  # sample i depends on (seed, i) only


def test_encode_writes_codes_and_a_map(run_directory):
    _, out, results = run_directory
    assert results[14][0] == 0, results[14]
    codes = np.load(out / "codes.npz")
    count = len(codes["label"])
    assert codes["mean"].shape == codes["sample"].shape == codes["kl"].shape == (count, 2)
    np.testing.assert_array_equal(codes["index"], np.arange(count))
    assert (out / "map.png").stat().st_size > 10_000


def test_dry_run_describes_and_writes_nothing(run_directory):
    code, text = run_directory[2][15]
    assert code == 0
    parameters = 64 * 8 + 8 + 2 * (8 * 2 + 2) + 2 * 8 + 8 + 8 * 64 + 64 + 1  # the scale
    assert f"{parameters:,}" in text and "FLOPs a step" in text and '"latent_dim": 2' in text


def test_values_that_are_not_finite_exit_3_and_can_be_replayed(run_directory):
    _, out, results = run_directory
    (code, text), (replay_code, replay) = results[16:18]
    assert code == 3 and f"--replay={out}/bad/failure-" in text and "Traceback" not in text, text
    first = re.search(r"step (\d+): (\S+) is not finite", text)
    assert replay_code == 3 and f"first bad part: {first[2]}" in replay, replay
    assert re.search(r"^finite +params/encoder$", replay, re.M) and re.search(r"^NOT FINITE", replay, re.M)


def test_analyze_writes_a_report_or_says_what_is_wrong(run_directory):
    workdir, out, results = run_directory
    (code, text), *wrong = results[21:25]
    assert code == 0 and f"{workdir}/report/index.html" in text and (workdir / "report" / "index.html").is_file(), text
    assert (workdir / "report" / "figures" / "samples.pdf").is_file()
    for (code, text), words in zip(wrong, (["maps", "'map'"], ["--limit=2"], ["tests", "test"]), strict=True):
        assert code == 2 and all(word in text for word in words) and "Traceback" not in text, text
    assert not (out / "none").exists()


def test_more_of_what_a_user_may_ask_for(run_directory):
    _, out, results = run_directory
    seed, option, betas = results[18:21]
    assert seed[0] == 2 and "--seed=-1" in seed[1]
    assert option[0] == 2 and "iwae.num_samples=4.0" in option[1]
    assert betas[0] == 0, betas
    saved = json.loads((out / "options" / "config.json").read_text())
    assert saved["optimizer"]["autoencoder"]["options"] == {"b1": 0.5}


def test_options_are_numbers_or_names():
    from experiments import command_line

    found = command_line.parse_options("iwae.num_samples=50,kid.extractor=pixels,memorisation.duplicate_below=0.2")
    assert found == {
        "iwae": {"num_samples": 50},
        "kid": {"extractor": "pixels"},
        "memorisation": {"duplicate_below": 0.2},
    }
    with pytest.raises(UserError, match="neither a number nor a name"):
        command_line.parse_options("iwae.num_samples=5 0")


def test_memory_comes_in_huge_pages_where_the_system_leaves_it_to_the_program(tmp_path):
    choice = tmp_path / "enabled"
    assert command_line.allocator({}, choice) == {}
    for mode in ("[always] madvise never", "always madvise [never]"):
        choice.write_text(mode)
        assert command_line.allocator({}, choice) == {}
    choice.write_text("always [madvise] never")
    asked = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    assert command_line.allocator({}, choice) == asked
    assert command_line.allocator(asked, choice) == {}
    others = command_line.allocator({"GLIBC_TUNABLES": "glibc.malloc.check=1"}, choice)
    assert others == {"GLIBC_TUNABLES": "glibc.malloc.check=1:glibc.malloc.hugetlb=1"}


@pytest.mark.parametrize("way", ["exit_with", "run"])
def test_a_command_starts_again_at_most_once_to_set_its_memory_up(way):
    program = f"""
import os, sys
from absl import flags
from experiments import command_line
flags.DEFINE_string("a", "", "")
print("started", flush=True)
def main():
    print("main", command_line.allocator(os.environ), *sys.argv[1:])
    return 3
command_line.{way}(main)
"""
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    words = [sys.executable, "-c", program, "--a=b c"]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    starts = 2 if command_line.allocator(environment) else 1
    assert (done.returncode, done.stdout.splitlines()) == (3, ["started"] * starts + ["main {} --a=b c"])
