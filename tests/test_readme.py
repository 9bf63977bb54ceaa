"""The README is checked: every path in it exists, every command in it parses, every config has its row."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import pytest

from latent import config

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PAGES = {path.relative_to(ROOT): path.read_text() for path in [ROOT / "README.md", *ROOT.glob("configs/*.py")]}
CONFIGS = {path: runpy.run_path(str(path)) for path in sorted(ROOT.glob("configs/*.py")) if path.stem != "base"}
VARIANTS = [(path, name) for path, module in CONFIGS.items() for name in module["VARIANTS"]]


def commands():
    for page, text in PAGES.items():
        for line in re.findall(r"^\s*(python -m \S+.*)$", text, re.M):
            yield pytest.param(line.split("  #")[0].strip(), id=f"{page}: {line.strip()[:60]}")


def test_every_path_exists():
    paths = set(re.findall(r"(?<![\w/])(?:latent|experiments|configs|scripts|tests|docs)/[\w./-]*\w", README))
    assert len(paths) > 10
    missing = [path for path in sorted(paths) if not (ROOT / path.split(":")[0]).exists()]
    assert not missing
    pictures = re.findall(r'<img src="([^"]+)"', README)
    assert pictures and all((ROOT / picture).is_file() for picture in pictures)


def test_both_scripts_are_there():
    for script in ("./scripts/demo.sh", "./scripts/test.sh"):
        assert script in README and (ROOT / script).stat().st_mode & 0o100


@pytest.mark.parametrize("line", list(commands()))
def test_every_command_names_real_flags_and_configs(line):
    words = shlex.split(line)[1:]
    assert words[0] == "-m"
    module = ROOT / (words[1].replace(".", "/") + ".py")
    source = module.read_text()
    source += (ROOT / "experiments" / "sampling.py").read_text() if "sampling" in source else ""
    known = set(re.findall(r'DEFINE_\w+\(\s*"([\w-]+)"', source)) | set(re.findall(r'"--([\w-]+)"', source))
    for word in words[2:]:
        if not word.startswith("--"):
            continue
        flag, _, value = word[2:].partition("=")
        root, _, key = flag.partition(".")
        assert root in known, (flag, sorted(known))
        if flag == "config":
            loaded = config.load(value)
        elif root == "config":
            assert key in config.flatten(loaded.to_dict()), key


@pytest.mark.parametrize(("path", "name"), VARIANTS, ids=lambda value: getattr(value, "stem", value))
def test_every_config_has_its_row(path, name):
    """Docstring: the paper or "Paper: none", the cost, and the command that runs it; and the config loads."""
    file = f"{path.relative_to(ROOT)}:{name}"
    row = CONFIGS[path]["VARIANTS"][name].__doc__
    if not name.startswith("tiny"):
        assert ("Paper" in row or "arXiv" in row) and "Cost:" in row and f"--config={file}" in row
    assert config.load(file).model.name in config.names("latent.models")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_file_has_a_tiny_variant(path):
    assert "tiny" in CONFIGS[path]["VARIANTS"]
