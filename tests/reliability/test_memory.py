"""Row 21: memory that runs out is told with batch, image size and advice; there is no half checkpoint."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import runs
import test_loop
from states import steps

from pixmed_jax import inference, memory
from pixmed_jax.errors import PixmedError
from pixmed_jax.training import loop
from pixmed_jax.training.loop import train


def greedy(task):
    """A step that asks for 16 TB."""

    def step(state, batch):
        noise = jax.random.normal(state.key, (2**20, 2**22))
        return state, {"loss": (noise @ noise.T).mean()}

    return task._replace(step=step)


def test_a_step_that_does_not_fit(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.setattr(loop.build, "make_task", lambda config, **_: greedy(test_loop.toy_task()))
    with pytest.raises(PixmedError, match="out of memory with 4 images of 32 x 32 at a time") as error:
        train(runs.config(tmp_path_factory), tmp_path / "run")
    message = str(error.value)
    assert "\n" not in message and "Out of memory allocating" in message
    assert "train.batch_size" in message and "train.accumulate" in message and "data.size" in message
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_run_that_no_longer_fits_keeps_its_steps(tmp_path, tmp_path_factory, monkeypatch):
    """The whole host is full after four steps."""
    report = loop.Bar.report

    def reporting(self, step, values):
        if step == 6:
            np.empty(2**55, np.uint8)  # 32 PB, which NumPy refuses with a MemoryError
        return report(self, step, values)

    test_loop.use_toy(monkeypatch)
    monkeypatch.setattr(loop.Bar, "report", reporting)
    with pytest.raises(PixmedError, match=r"out of memory .*Unable to allocate"):
        train(runs.config(tmp_path_factory), tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    assert steps(folder) == [2, 4]
    assert sorted(path.name for path in folder.iterdir()) == ["2", "4"]


def test_a_batch_of_samples_that_does_not_fit(tmp_path_factory, monkeypatch):
    generate = inference.load(runs.trained(tmp_path_factory))
    monkeypatch.setattr(generate, "_predict", lambda *_: jnp.zeros((2**22, 2**22)))
    with pytest.raises(PixmedError, match=r"with 64 images of 32 x 32 .*sample\.batch_size") as error:
        generate(np.zeros((1, 32, 32), np.uint8), batch_size=64)
    assert "\n" not in str(error.value)


def test_other_errors_pass():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"), memory.told(1, 1, "advice"):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")
