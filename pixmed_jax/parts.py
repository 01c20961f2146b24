"""Work of many runs by one command: a study or a utility experiment is a list of parts, each a run's folder.

A part is trained, evaluated and, if slices are to be drawn from it, audited and sampled. What is done is
passed over and what was stopped goes on where it was, so the same command finishes a list whenever it is
given again. Given twice at the same time, the two share the work: each takes the first part that is ready and
that nobody works on. Small networks do not fill a machine's cores, and several machines may see one folder.
"""

import csv
import gc
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from pixmed_jax import texts, writing
from pixmed_jax import workdir as run_folder
from pixmed_jax.config import differences, is_place
from pixmed_jax.data.synthetic import MANIFEST
from pixmed_jax.errors import PixmedError, listing
from pixmed_jax.evaluation.audit import audit
from pixmed_jax.evaluation.evaluate import evaluate
from pixmed_jax.sampling import sample
from pixmed_jax.training import checkpoint
from pixmed_jax.training.loop import train
from pixmed_jax.training.start import begin, total_steps

_PATIENCE = 5.0  # seconds between looks at parts that others work on


class Part(NamedTuple):
    """One run: its folder, its config, what to draw from it once trained, and the part it waits for.

    samples: {folder within the run's: options of a sampling}. split: what it is evaluated on; "" is nothing.
    audit: the options of its audit, if it has one. trains: False where its folder is only begun, for pixels
    to be copied.
    """

    name: str
    workdir: Path
    config: dict[str, Any]
    samples: Mapping[str, Mapping[str, Any]] = {}
    split: str = "test"
    needs: str = ""
    audit: Mapping[str, Any] | None = None
    trains: bool = True


def prepare(
    folder: Path,
    config: dict[str, Any],
    what: str,
    *,
    fresh: bool,
    contents: Sequence[str],
    may_change: Sequence[str] = (),
    may_come: Sequence[str] = (),
) -> None:
    """Make `folder` that of this work: new, gone on with under the same config, or emptied by `fresh`.

    contents: what the work writes there, and all that `fresh` deletes. may_change: keys that may differ.
    may_come: tables whose entries may come later and be left out, but not differ.
    """
    there = texts.found_object(folder / run_folder.CONFIG)
    if "model" in there and "model" not in config:  # of a run, whose results `fresh` would leave without it
        raise PixmedError(f"{folder}: is the folder of a run and of no {what}; give another --workdir")
    old = {} if fresh else there
    if old:
        config = {**config, **{table: {**old[table], **config[table]} for table in may_come}}
        come = tuple(f"{table}.{name}." for table in may_come for name in config[table].keys() - old[table])
        changed = [
            key
            for key, values in differences(old, config).items()
            # Each part looks by itself whether its data in another place are the same.
            if key not in may_change and not key.startswith(come) and not is_place(key, *values)
        ]
        if changed:
            raise PixmedError(
                f"{folder}: holds a {what} with another config ({listing(changed)}); give another --workdir, "
                "or --fresh to start over in this one"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if fresh:
            for name in contents:
                writing.check_idle(folder / name)
                shutil.rmtree(folder / name, ignore_errors=True)
        writing.write_json(folder / run_folder.CONFIG, config)
    except OSError as error:
        raise PixmedError(
            f"{folder}: cannot be written ({error.strerror}); give another --workdir"
        ) from error


def finish(parts: Sequence[Part], what: str) -> int:
    """Run all parts that are not done. Returns 0, or 128 + the signal that stopped one of them."""
    started, left = time.monotonic(), list(parts)
    before = {part.name for part in parts if is_done(part)}
    told_of_waiting = False
    while left:
        ready = {part.name for part in parts} - {part.name for part in left}
        for part in left:
            if part.needs and part.needs not in ready:
                continue
            try:
                with writing.locked(part.workdir):
                    if not is_done(part):
                        number = len(parts) - len(left) + 1
                        to_come = sum(each.name not in before for each in left)  # by others too
                        done = len(parts) - len(before) - to_come
                        clock = _clock(time.monotonic() - started, done, to_come)
                        print(f"{what}: part {number} of {len(parts)}, {part.name} ({clock})", flush=True)
                        status = _run(part)
                        if status:
                            return status
                        gc.collect()
                        jax.clear_caches()  # compiled steps of parts that are done would fill the memory
            except writing.InUseError:
                continue
            left.remove(part)
            break
        else:
            if not told_of_waiting:
                print(f"{what}: {len(left)} parts are worked on elsewhere, waiting for them", flush=True)
                told_of_waiting = True
            time.sleep(_PATIENCE)
    return 0


def is_done(part: Part) -> bool:
    done = not part.split or _evaluated(part), part.audit is None or _audited(part)
    return all(done) and all(_sampled(part, name) for name in part.samples)


def _run(part: Part) -> int:
    """Do what is missing of a part."""
    if not part.trains:
        begin(part.config, part.workdir)
    elif not (part.split and _evaluated(part)):
        status = 0 if _trained(part) else train(part.config, part.workdir)
        if status:
            return status
        if part.split and not _evaluated(part):  # as it is where only its data lay elsewhere
            evaluate(part.workdir, split=part.split)
    if part.audit is not None and not _audited(part):
        audit(part.workdir, **part.audit)
    for name, options in part.samples.items():
        if not _sampled(part, name):
            sample(part.workdir, **options, output=str(part.workdir / name), fresh=True, quiet=True)
    return 0


def _trained(part: Part) -> bool:
    """Whether the run's last step is there, if it was evaluated on other patients, or not at all."""
    last, saved = _last_step(part), checkpoint.newest_intact(part.workdir / "checkpoints")
    return saved is not None and saved.step == last


def _evaluated(part: Part) -> bool:
    """Whether the run is evaluated at its last step."""
    evaluated = texts.found_object(part.workdir / run_folder.EVALUATION)
    return (evaluated.get("step"), evaluated.get("split")) == (_last_step(part), part.split)


def _audited(part: Part) -> bool:
    """Whether the run is audited at its last step; that as many images were asked for is not looked at."""
    last = _last_step(part)
    return last is not None and texts.found_object(part.workdir / run_folder.AUDIT).get("step") == last


def _sampled(part: Part, name: str) -> bool:
    """Whether a folder of samples is that of the run's last step, in the number that is wanted."""
    try:
        with (part.workdir / name / MANIFEST).open(newline="", encoding="utf-8") as table:
            rows = list(csv.DictReader(table))
    except FileNotFoundError:
        return False
    last, painted = _last_step(part), [row for row in rows if not row.get("painter")]  # by the network
    same = last is not None and all(row["step"] == str(last) for row in painted)
    return same and len(rows) == part.samples[name]["number"]


def _last_step(part: Part) -> int | None:
    """None where the run in the part's folder has another config, such as other places, or none."""
    if texts.found_object(part.workdir / run_folder.CONFIG) != json.loads(json.dumps(part.config)):
        return None
    train_slices = (run_folder.read_split(part.workdir) or {}).get("train", {})
    return total_steps(part.config, len(train_slices))


def _clock(seconds: float, done: int, left: int) -> str:
    """How long it took so far, and how long it will take if the parts to come are like those before."""
    so_far = f"{_minutes(seconds)} so far"
    return f"{so_far}, about {_minutes(seconds / done * left)} left" if done else so_far


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02d}"
