"""What a run would be, without running it: resolved config, parameters, FLOPs and memory a step."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from latent import build, flops, parallel
from latent.step import build_dispatch, cycle_length


def describe(settings: Mapping[str, Any], overridden: Iterable[str]) -> str:
    """What a run would be: resolved config, parameter count, FLOPs and memory a step. Writes nothing of
    it; a first stage keeps its statistics, once computed, in its own directory."""
    settings = build.resolved(settings)
    experiment = build.build(settings, overridden)
    driver = build.driver(settings)
    state = experiment.abstract_state()
    feed = experiment.feed(state)
    build.steps_per_dispatch(experiment, 0, True, cycle_length(experiment.recipe.model))
    cycle = cycle_length(experiment.recipe.model)
    dispatch = build_dispatch(experiment.recipe, feed.fetch, cycle, rolled=False)
    jitted = jax.jit(dispatch, donate_argnums=parallel.donated(driver.devices))
    compiled = jitted.lower(state, np.uint32(0), feed.resident, feed.inputs(0, cycle)).compile()
    memory, counted = compiled.memory_analysis(), flops.of_step(build.one_cycle(experiment), cycle)
    lines = [json.dumps(settings, indent=2, sort_keys=True), ""]
    lines.append(f"parameters            {build.count_parameters(state):,}")
    for player in experiment.recipe.model.players:
        own = sum(leaf.size for name in player.owns for leaf in jax.tree.leaves(state.params.get(name, {})))
        lines.append(f"  {player.name:<19} {own:,} (every {player.every})")
    if counted is not None:
        lines.append(f"FLOPs a step          {counted:.4g} (whole batch)")
    if memory is not None:
        size = memory.argument_size_in_bytes + memory.temp_size_in_bytes
        lines.append(
            f"memory a step         {size / 2**20:.1f} MiB (arguments, resident data included, and temporaries)"
        )
    lines.append(f"devices               {len(driver.devices)} x {driver.devices[0].device_kind}")
    return "\n".join(lines)
