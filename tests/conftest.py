"""Settings to be made before JAX starts, and weights to test networks with.

The tests run on the CPU, on one device, and compile with little optimisation, which is most of their time
otherwise; any of this gives way to what the environment says. Rank promotion stays allowed: a bias over the
channels of an NHWC image is one, in this code and in Flax.
"""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

# The same examples in every run, so that a failure is of the change at hand; HYPOTHESIS_PROFILE=default looks
# for new ones, and what it finds becomes an @example.
settings.register_profile("same", derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Without its fusion emitters, and in one piece, XLA compiles such programs in half the time (BUILD_NOTES.md).
# It ends a process that gives it a flag it does not know, and flags come and go (jaxlib 0.12 has lost the
# first), so each is tried in another process.
for flag in ("--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"):
    given = os.environ.get("XLA_FLAGS", "")
    if flag.split("=")[0] not in given:
        tried = subprocess.run(
            [sys.executable, "-c", "from jaxlib import xla_client; xla_client.CompileOptions()"],
            env=os.environ | {"XLA_FLAGS": flag},
            stderr=subprocess.DEVNULL,
        )
        if tried.returncode == 0:
            os.environ["XLA_FLAGS"] = f"{flag} {given}".strip()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the most slow tests first: begun last, one of them would keep a single worker at the end."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


def drawn(init: Callable[[], Any], seed: int = 0) -> Any:
    """What `init()` would return, with NumPy's numbers instead: `init` is only traced.

    The kernels are large enough for every layer to be heard in the output, unlike N(0, 0.02) at these widths,
    and no norm is the identity.
    """
    import jax

    generator = np.random.default_rng(seed)

    def leaf(path: tuple, like: Any) -> np.ndarray:
        x = generator.normal(size=like.shape)
        name = path[-1].key
        if name == "kernel":
            x *= 1.5 / np.sqrt(np.prod(like.shape[:-1]))
        else:
            x = {"scale": 1 + 0.2 * x, "bias": 0.2 * x, "mean": 0.2 * x, "var": 0.5 + np.abs(x)}[name]
        return x.astype(like.dtype)

    return jax.tree_util.tree_map_with_path(leaf, jax.eval_shape(init))


@pytest.fixture(scope="session")
def draw() -> Callable[..., Any]:
    return drawn


@pytest.fixture
def chosen_by(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Sets limits of `convolutions`, by which it chooses forms, for one test; what was traced goes."""
    import jax

    from pixmed_jax.models import convolutions

    def choose(**limits: int) -> None:
        for name, limit in limits.items():
            monkeypatch.setattr(convolutions, name, limit)
        jax.clear_caches()

    yield choose
    monkeypatch.undo()
    jax.clear_caches()


@pytest.fixture(scope="session", autouse=True)
def _keep_what_is_compiled(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests of different files, and the two workers, compile much the same."""
    import jax
    import runs
    from jax.experimental.compilation_cache import compilation_cache

    jax.config.update("jax_compilation_cache_dir", str(runs.cache(tmp_path_factory)))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    compilation_cache.reset_cache()  # it looks at the setting only once


from states import folder, written  # noqa: E402, F401, since JAX reads the settings when it is imported
