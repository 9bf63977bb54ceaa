"""Eight virtual CPU devices, programs compiled quickly rather than well (most run once, on tiny shapes) and a
persistent compilation cache, all set before jax is imported."""

import gc
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
DEVICES = " --xla_force_host_platform_device_count=8"
QUICKLY = " --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"  # 20 normal draws: 6.8 -> 1.8 s
QUICKLY += " --xla_cpu_parallel_codegen_split_count=1 --xla_llvm_disable_expensive_passes=true"  # 10% less each
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + DEVICES + QUICKLY
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["WANDB_MODE"] = "disabled"
CACHE = os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "compilation"))

import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update("jax_compilation_cache_dir", CACHE)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)  # to write what is small takes a twentieth
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


MAPS = Path("/proc/self/maps")


@pytest.fixture(scope="module", autouse=True)
def forget_compiled_programs():
    """Every loaded program holds memory maps, of which a process may have 65,530: the whole suite would need more."""
    yield
    if not MAPS.exists() or MAPS.read_text().count("\n") > 30_000:
        jax.clear_caches()


def pytest_collection_finish(session):
    """What has been imported lives on: to look through it for garbage again and again takes 3% of the time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)
