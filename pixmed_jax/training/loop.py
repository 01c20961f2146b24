"""The training loop: data in, steps, grids, checkpoints; killed or told to stop, it goes on where it was.

`train(config, workdir)` is the whole contract. The loop knows a `Task`, never a network.
"""

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh

from pixmed_jax import config as configs
from pixmed_jax import inference, memory, writing
from pixmed_jax import workdir as run_folder
from pixmed_jax.data import augment_picture
from pixmed_jax.data.augment_settings import enabled
from pixmed_jax.data.degrade import degradation
from pixmed_jax.data.pipeline import Arrays, make_batch
from pixmed_jax.data.sources import Dataset
from pixmed_jax.errors import NAMED, PixmedError, listing
from pixmed_jax.models import count
from pixmed_jax.signals import Interrupt
from pixmed_jax.training import build, checkpoint, settle
from pixmed_jax.training import mesh as meshes
from pixmed_jax.training.feed import Feed
from pixmed_jax.training.heldout import HeldOut
from pixmed_jax.training.records import Bar, Records
from pixmed_jax.training.start import check_slices, make_folder, notices, opened
from pixmed_jax.training.task import Task, jit_init

_ADVICE = "lower train.batch_size, raise train.accumulate, or lower data.size; what was saved is intact"


class Run(NamedTuple):
    """What does not change while a run trains."""

    config: dict[str, Any]
    workdir: Path
    dataset: Dataset
    task: Task
    mesh: Mesh


def train(config: dict[str, Any], workdir: Path, *, fresh: bool = False) -> int:
    """Train `config` in `workdir` to its last step. Returns 0, or 128 + the signal that stopped it.

    A run that is there is resumed from its newest intact checkpoint. Raises PixmedError for what the user
    can cure: data, config, disk, or numbers that do not stay finite.
    """
    config = configs.plain(config)  # as it will be read back: a tuple is a list then
    stopping = "stopping after this step; once more to stop without saving"
    with Interrupt(stopping) as interrupt, ExitStack() as held:
        mesh = meshes.make_mesh(config["train"]["batch_size"])
        begun = not fresh and any((workdir / "checkpoints").glob("*/manifest.json"))
        record = run_folder.read_split(workdir) if begun else None
        dataset, task, steps = opened(config, record)
        run = Run(config, workdir, dataset, task, mesh)
        held.enter_context(memory.told(config["train"]["batch_size"], config["data"]["size"], _ADVICE))
        saves, keep, new = workdir / "checkpoints", config["checkpoint"]["keep"], None
        if not begun:  # else all was read then
            check_slices(config, dataset)
            new = _new(run)
        if meshes.is_first():  # not before all that can be checked is checked: `fresh` deletes
            if new:
                checkpoint.check_room(saves, new, keep, fresh=fresh)
            held.enter_context(writing.locked(workdir / "training"))
            make_folder(config, workdir, dataset, fresh=fresh)
        meshes.wait("the run's folder is ready")
        state = _resumed(run) or new or _new(run)
        first = int(state.step)
        if first >= steps:
            where = f"{first} of {steps}" if first == steps else f"{first}, beyond the {steps} asked for"
            _tell(
                f"{workdir}: already trained to step {where}; raise train.steps to go on, "
                "or give --fresh to start over"
            )
            if task.settle and not settle.is_settled(workdir, first):
                _tell(
                    f"the styles of step {first} are not settled, which a training does at its last step; "
                    f"train to step {first + 1} for that"
                )
            return _ended(interrupt)
        for told in notices(config, dataset):
            _tell(told)
        if meshes.is_first():
            run_folder.note(workdir, **run_folder.environment())  # where it goes on, which may be elsewhere
            checkpoint.check_room(saves, state, keep)
        return _run(run, state, steps, interrupt) or _ended(interrupt)


def _ended(interrupt: Interrupt) -> int:
    """0, or the status of a signal that came when no step was left to stop at: what would follow does not."""
    return 128 + interrupt.signal if interrupt.signal else 0


def _tell(line: str) -> None:
    if meshes.is_first():
        print(line, flush=True)


def _first(run: Run) -> tuple[jax.Array, Any]:
    """What a state is made of: the key of the run's seed, and a batch."""
    batch = inference.example_batch(run.config, len(run.dataset.classes))
    return jax.random.PRNGKey(run.config["seed"]), batch


def _new(run: Run) -> Any:
    """The state before the first step."""
    init = jit_init(run.task.init, out_shardings=meshes.replicated(run.mesh))
    return build.start(run.config, init(*_first(run)))


def _resumed(run: Run) -> Any:
    """The newest intact state of this run, if there is one."""
    saved = checkpoint.newest_intact(run.workdir / "checkpoints")
    if saved is None:
        return None
    _tell(f"resuming {run.workdir} from step {saved.step}")
    like = jax.eval_shape(run.task.init, *_first(run))
    return checkpoint.restore(saved, meshes.like(like, meshes.replicated(run.mesh)))


def jit_step(task: Task, config: dict[str, Any], classes: int, mesh: Mesh, *, streamed: bool = False) -> Any:
    """The jitted step (state, *what `Feed` gives) -> (state, metrics); the state is donated."""
    data = config["data"]
    degrade = degradation(data["condition"], data.get("scale", 1))

    def step(state: Any, arrays: Arrays, rows: jax.Array | None) -> tuple[Any, dict[str, jax.Array]]:
        key = jax.random.fold_in(jax.random.key(config["seed"]), state.step)
        batch = make_batch(
            arrays,
            rows,
            key,
            size=data["size"],
            classes=classes,
            channels=data["channels"],
            augment=data.get("augment"),
            degrade=degrade,
        )
        return task.step(state, batch)

    everywhere, cut = meshes.replicated(mesh), meshes.sharded(mesh)
    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(everywhere, cut, None) if streamed else (everywhere, everywhere, cut),
        out_shardings=(everywhere, everywhere),
        # Without it XLA's CPU backend copies most of the donated optimiser state in every step.
        compiler_options={"xla_cpu_copy_insertion_use_region_analysis": True},
    )


def _run(run: Run, state: Any, steps: int, interrupt: Interrupt) -> int:
    """From `state` to step `steps`, or to the step at which a signal arrived."""
    config, workdir, dataset = run.config, run.workdir, run.dataset
    seed, batch_size, log = config["seed"], config["train"]["batch_size"], config["log"]
    first = int(state.step)
    held_out = HeldOut(dataset, run.task)
    feed = Feed(
        dataset,
        run.mesh,
        seed=seed,
        batch_size=batch_size,
        resident=config["train"]["resident_gb"] * 2**30,
    )

    _tell(f"compiling the step for {jax.device_count()} {jax.default_backend()} device(s) ...")
    started = time.monotonic()
    step_function = jit_step(run.task, config, len(dataset.classes), run.mesh, streamed=feed.streamed)
    given: Any = feed(first)  # once: where they are streamed, asking again would decode them again
    step_function = step_function.lower(state, *given).compile()
    _tell(f"compiled in {time.monotonic() - started:.0f} s")

    first_process = meshes.is_first()
    if first_process:
        run_folder.note(workdir, step_bytes=count.reserved(step_function))
    records = Records(workdir if first_process else None, first)
    bar = Bar(first, steps, batch_size, every=log["every"], shown=first_process)
    writer = checkpoint.Writer(
        workdir / "checkpoints",
        keep=config["checkpoint"]["keep"],
        config=config,
        classes=dataset.classes,
        grey=feed.grey,
        limits=feed.limits,
        planes=dataset.planes,
    )

    def look(step: int, *, draw: bool) -> float:
        scores, grid = held_out.look(state.ema)
        records.scalars(step, {f"held_out/{name}": value for name, value in scores.items()})
        if draw and first_process:
            picture = grid()
            (workdir / "grids").mkdir(exist_ok=True)
            picture.save(workdir / "grids" / f"step_{step:06d}.png")
            records.picture(step, "held_out", picture)
        return next(iter(scores.values()), float(step))

    try:
        if first == 0:
            look(0, draw=True)
            if first_process:
                _show_augmentation(config, dataset, workdir / "grids", records)
        for step in range(first + 1, steps + 1):
            began = time.monotonic()
            state, metrics = step_function(state, *(given or feed(step - 1)))
            given = None
            stopped_by = interrupt.signal  # read once: one that arrives below is for the next step
            if jax.process_count() > 1:  # all must stop at the same step, and asking has its price
                stopped_by = (meshes.agree(stopped_by or 0) or None) if step % log["every"] == 0 else None
            last = step == steps or stopped_by is not None
            told = last or step % log["every"] == 0
            draw, save = step % log["grid_every"] == 0, step % config["checkpoint"]["every"] == 0
            if draw or save:  # which would await the steps below, where their time is not counted
                jax.block_until_ready(metrics)
            if told:
                values = {name: float(value) for name, value in jax.device_get(metrics).items()}
                values["skipped"] = int(state.skipped)
            writer.poll()
            bar.advance(step, time.monotonic() - began)
            if told:
                values["images_per_second"] = bar.report(step, _headline(values))
                records.scalars(step, values)
                _stop_when_lost(state, config, dataset, feed)
            if step == steps and run.task.settle:
                state = _settled(run, state, records)
            if draw or save or last:
                score = look(step, draw=draw or last)
                if save or last:
                    _stop_when_lost(state, config, dataset, feed)
                    writer.save(step, state, score)
            if stopped_by is not None:
                writer.finish()
                _tell(f"stopped at step {step} of {steps}, saved; the same command resumes")
                return 128 + stopped_by
        writer.finish()
    finally:
        feed.close()
        bar.close()
        records.close()
        writer.close()  # may raise: of a save that fails at the end nobody else would tell
    _tell(f"trained {steps} steps in {workdir}")
    return 0


def _settled(run: Run, state: Any, records: Records) -> Any:
    """The state after the last step, its average settled."""
    assert run.task.settle
    variables, metrics = run.task.settle(state.ema, settle.training_slices(run.dataset), state.key)
    values = {name: float(value) for name, value in jax.device_get(metrics).items()}
    records.scalars(int(state.step), {f"settled/{name}": value for name, value in values.items()})
    _tell(settle.told(values))
    return state._replace(ema=jax.device_put(variables, meshes.replicated(run.mesh)))


def _show_augmentation(config: dict[str, Any], dataset: Dataset, folder: Path, records: Records) -> None:
    """Pictures of what is done to a training slice, for people."""
    sections = {
        "augmentation": config["data"].get("augment"),
        "augmentation_discriminator": config["train"].get("augment_discriminator"),
    }
    for name, settings in sections.items():
        if settings and enabled(settings):
            _tell(f"drawing grids/{name}.png ...")
            picture = augment_picture.of_training(dataset, settings)
            picture.save(folder / f"{name}.png")
            records.picture(0, name, picture)


def _headline(values: dict[str, float]) -> dict[str, float]:
    """The few numbers that fit a line: losses, and skipped steps once there are any."""
    shown = {n.split("/")[-1]: v for n, v in values.items() if not n.endswith("_norm")}
    return {n: v for n, v in shown.items() if v or n != "skipped"}


def _stop_when_lost(state: Any, config: dict[str, Any], dataset: Dataset, feed: Feed) -> None:
    """Raise when `train.max_skipped` steps in a row were not finite; names the files of the first of them."""
    in_row = int(state.skipped_in_row)
    if in_row < config["train"]["max_skipped"]:
        return
    first_bad = int(state.step) - in_row
    files = sorted({dataset.source.files[row] for row in feed.rows(first_bad)})
    raise PixmedError(
        f"losses are not finite since step {first_bad + 1} ({in_row} steps skipped, nothing of them saved); "
        f"its batch was {listing(files, NAMED)}; look at these files, "
        "or lower optimizer.learning_rate, and rerun to resume"
    )
