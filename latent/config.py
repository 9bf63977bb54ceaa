"""Configs: load, track what is read, compare, write. Knows no key's meaning beyond a few that every run has.

A config is a locked `ConfigDict`; the parts of a run read it through a `Section`, once, when they are built. What a
user overrode and nothing read is then an error (law 12).
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_collections

from latent.errors import UserError, unknown_name

FILE = "config.json"

MAY_CHANGE = (
    "log.",
    "eval.",
    "checkpoint.",
    "parallel.",
    "data.dir",
    "data.device_budget",
    "data.workers",
    "data.encode_once",
)
"""Keys that a continued run may change: none of them changes what is computed beyond rounding."""


class Section(Mapping):
    """A read-only view of a config section that remembers which keys were read.

    Attribute and item access both work; a nested section is a `Section` on the same record.
    """

    def __init__(self, values: Mapping[str, Any], path: str = "", read: set[str] | None = None):
        self._values, self._path = values, path
        self.read = set() if read is None else read

    def __getitem__(self, key: str) -> Any:
        if key not in self._values:
            raise unknown_name("config key", self._path + key, [self._path + name for name in self._values])
        value = self._values[key]
        if isinstance(value, Mapping | ml_collections.ConfigDict):
            return Section(value, f"{self._path}{key}.", self.read)
        self.read.add(self._path + key)
        return tuple(value) if isinstance(value, list) else value

    def __getattr__(self, key: str) -> Any:
        if key.startswith("_"):
            raise AttributeError(key)
        return self[key]

    def __contains__(self, key: object) -> bool:
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def plain(self) -> dict[str, Any]:
        """The whole section as nested dicts; counts as read."""
        return {key: value.plain() if isinstance(value, Section) else value for key, value in self.items()}


def load(path: str, overrides: Mapping[str, Any] | None = None) -> ml_collections.ConfigDict:
    """Loads `configs/file.py:variant` with overrides {"model.latent_dim": 8}, locked.

    Raises UserError for a missing file, an unknown variant or key, and a value of the wrong type.
    """
    file, _, variant = path.partition(":")
    if not Path(file).is_file() or not file.endswith(".py"):
        raise unknown_name("--config", file, map(str, Path(file).parent.glob("*.py")))
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise UserError(f"--config={file} defines no get_config().")
    if variant and not hasattr(module, "VARIANTS"):
        raise UserError(f"--config={path}: {file} has no variants.")
    config = module.get_config(variant) if variant else module.get_config()
    return override(config, overrides or {})


def override(config: ml_collections.ConfigDict, overrides: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """Applies {dotted key: value} to a config and locks it. Text is read as the type of what it replaces.

    A key must exist, except in a section called `options`, which holds another library's keyword arguments.
    """
    config.lock()
    for key, value in overrides.items():
        known = flatten(config.to_dict())
        parent = key.rpartition(".")[0]
        if key not in known and not (parent.endswith(".options") and _section(config, parent) is not None):
            raise unknown_name("config key", key, known)
        try:
            parsed = _parse(value, config, key) if isinstance(value, str) else value
            with config.unlocked():
                config.update_from_flattened_dict({key: parsed})
        except (TypeError, ValueError, KeyError) as error:
            kind = type(known.get(key)).__name__
            raise UserError(f"config.{key}={value!r} does not fit: it is {kind}, now {known.get(key)!r}.") from error
    return config


def _section(config: ml_collections.ConfigDict, path: str) -> ml_collections.ConfigDict | None:
    found: Any = config
    for name in path.split("."):
        found = found.get(name) if isinstance(found, ml_collections.ConfigDict) else None
    return found if isinstance(found, ml_collections.ConfigDict) else None


def _parse(text: str, config: ml_collections.ConfigDict, key: str) -> Any:
    """The value that a word of the command line means for a key: "8,16" for a tuple, "false" for a bool."""
    parent, _, leaf = key.rpartition(".")
    section = _section(config, parent) if parent else config
    kind = section.get_type(leaf) if section is not None and leaf in section else type(None)
    if kind is str:
        return text
    if kind is bool:
        return {"true": True, "false": False}[text.lower()]
    try:
        value = ast.literal_eval(text) if text else ()
    except (ValueError, SyntaxError):
        value = tuple(part for part in text.split(",") if part) if kind is tuple else text
    return (value,) if kind is tuple and not isinstance(value, tuple) else value


def choose(variants: Mapping[str, Any], name: str) -> Any:
    """One of a config file's variants, by the argument after the colon of --config."""
    if name not in variants:
        raise unknown_name("config variant", name, variants)
    return variants[name]


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"model": {"latent_dim": 8}} -> {"model.latent_dim": 8}."""
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping | ml_collections.ConfigDict) and len(value):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def validate(config: Mapping[str, Any]) -> None:
    """Checks the values that every run has. What only one part knows is checked where that part is built."""
    flat = flatten(config)
    for key in ("train.steps", "train.batch_size", "train.microbatches", "log.every", "eval.batch_size"):
        if flat[key] < 1:
            raise UserError(f"{key}={flat[key]} must be at least 1.")
    for key in ("checkpoint.every", "eval.every", "train.steps_per_dispatch", "log.images", "seed"):
        if flat[key] < 0:
            raise UserError(f"{key}={flat[key]} must not be negative.")
    if flat["seed"] >= 2**32:
        raise UserError(f"seed={flat['seed']} must be below 2**32.")
    if flat["train.batch_size"] % flat["train.microbatches"]:
        raise UserError(
            f"train.microbatches={flat['train.microbatches']} must divide train.batch_size={flat['train.batch_size']}."
        )


def write(config: Mapping[str, Any], workdir: Path) -> None:
    """Writes config.json (never YAML: ml_collections puts Python tags there), whole or not at all."""
    temporary = workdir / (FILE + ".tmp")
    temporary.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    temporary.rename(workdir / FILE)


def read(workdir: Path) -> dict[str, Any]:
    """The resolved config of a run."""
    try:
        found = json.loads((workdir / FILE).read_text())
        validate(found)
        return found
    except FileNotFoundError as error:
        raise UserError(f"--workdir={workdir} holds no run: there is no {FILE} in it.") from error
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"{workdir / FILE} cannot be read: {type(error).__name__}: {error}.") from error


def continued(saved: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a run that goes on: `new`, with what the first start had resolved.

    Raises UserError with the differing keys where `new` is another experiment.
    """
    old, now = flatten(saved), flatten(json.loads(json.dumps(new)))
    # The horizon of a schedule and what other runs handed over are decided at the first start (build.resolved);
    # nothing else is inherited.
    now |= {key: old[key] for key, value in now.items() if key.endswith(".horizon") and value is None and key in old}
    now |= {key: value for key, value in old.items() if key.startswith("model.") and key.split(".")[1].endswith("_run")}
    differing = [
        f"{key}: {old.get(key)!r} -> {now.get(key)!r}"
        for key in sorted(old.keys() | now.keys())
        if old.get(key) != now.get(key) and not key.startswith(MAY_CHANGE) and key != "train.steps"
    ]
    if now["train.steps"] < old["train.steps"]:
        differing.append(f"train.steps: {old['train.steps']} -> {now['train.steps']} (it may only grow)")
    if differing:
        raise UserError("--workdir holds another run; these keys differ: " + "; ".join(differing) + ".")
    return unflatten(now)


def unflatten(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `flatten`."""
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        *parents, leaf = key.split(".")
        section = nested
        for parent in parents:
            section = section.setdefault(parent, {})
        section[leaf] = value
    return nested


def select(package: str, name: str, symbol: str, key: str) -> Any:
    """The agreed `symbol` of the module `package.name` that a config key selects; a wrong name lists the valid ones."""
    available = names(package)
    module = importlib.import_module(f"{package}.{name}") if name in available else None
    if not hasattr(module, symbol):
        valid = [other for other in available if hasattr(importlib.import_module(f"{package}.{other}"), symbol)]
        raise unknown_name(key, name, valid)
    return getattr(module, symbol)


def names(package: str) -> list[str]:
    """The modules of a package: what its folder offers, with no registry to keep."""
    return [module.name for module in pkgutil.iter_modules(importlib.import_module(package).__path__)]
