r"""PixMed-Enhancer in JAX: train a generator of MR slices from tumour masks, sample from it, evaluate it.

Train (the same command resumes; --fresh starts over):
  python launch.py --config=configs/ghost.py
  python launch.py --config=configs/ghost.py --config.data.source=folder --config.data.dir=DIR \
      --workdir=runs/mine
  python launch.py --config=configs/ghost.py:paper --config.data.dir=DIR --dry_run

Then, from the run's folder alone:
  python launch.py --workdir=runs/mine --mode=sample --sample.number=500 --sample.split=train \
      --sample.edit=mixed --sample.balance
  python launch.py --workdir=runs/mine --mode=evaluate
  python launch.py --workdir=runs/mine --mode=audit
  python launch.py --workdir=runs/mine --mode=utility
  python launch.py --workdir=runs/mine --mode=reader
  python launch.py --workdir=runs/mine --mode=export
  python launch.py --workdir=runs/mine --mode=demo

Draw a tumour in the browser, on small weights that come with the project:
  python launch.py --mode=demo

Several runs side by side, or the paper's whole comparison from scratch:
  python launch.py --mode=compare --workdirs=runs/ghost-quick,runs/pix2pix-quick --workdir=runs/compare
  python launch.py --config=configs/study.py

Before any of it, look for defects and copies in a folder, or between two:
  python launch.py --mode=check_data --data=DIR --against=OTHER --workdir=runs/mine

Brighten dark pictures or enlarge small ones, whole folders, with a report:
  python launch.py --mode=enhance --input=DIR --output=DIR
  python launch.py --mode=upscale --input=DIR --output=DIR --upscale.scale=2 --upscale.workdir=runs/mine

A run remembers its data folder; if it has moved, give --data=NEW once, with any of these modes.

Exit status: 0 done, 1 a fault told in one line, 2 a mistake in the command line (a flag, a key, or what an
option of a mode does not know), 130 or 143 stopped by Ctrl-C or SIGTERM: a training saved, anything else
undone.
"""

import errno
import gc
import os
import signal
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from pixmed_jax import compiled, options
from pixmed_jax import config as configs
from pixmed_jax.allocator import keep_freed_memory
from pixmed_jax.command_line import (
    HERE,
    UsageError,
    check_names,
    load_config,
    program,
    started_by,
    value_of,
    with_config,
)
from pixmed_jax.errors import OptionError, PixmedError
from pixmed_jax.signals import Interrupt, Stopped

RESTORERS = {"low_resolution": "upscale", "low_light": "enhance"}  # those that a run of a condition serves
STAGES = {mode: options.defaults(mode) for mode in options.MODES}
FLAGS = flags.FLAGS


def main(argv: list[str]) -> int:
    keep_freed_memory()  # before there is a second thread, which Interrupt starts
    try:
        with Interrupt("stopping; once more to stop at once", raises=True):
            return _main(argv)
    except Stopped as stopped:
        print(f"launch.py: stopped by {stopped}; nothing half-written is left", file=sys.stderr)
        return stopped.status


def _main(argv: list[str]) -> int:
    started_by(argv[0])
    try:
        check_names(argv[1:], STAGES)
        warnings.formatwarning = _once()
        _define_flags()
        if "--help" in argv or "-h" in argv:
            print(_help(argv[1:]), flush=True)
            return 0
        unread = FLAGS(argv)[1:]
        if unread:
            raise UsageError(f"{unread[0]!r} is no flag; flags are written --name=value")
        return _dispatch()
    except (UsageError, OptionError, flags.Error) as error:
        print(f"launch.py: {error}", file=sys.stderr)
        return 2
    except PixmedError as error:
        print(f"launch.py: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # as of `| head`: nobody reads on, which is no fault
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        where = error.filename or "the disk"
        print(f"launch.py: {where}: {error.strerror}; free space, then the same command", file=sys.stderr)
        return 1


def _once() -> Callable[..., str]:
    """How warnings are told: in a line, and each once, as a stage opens its data more than once."""
    told: set[str] = set()

    def line(message: Warning | str, *_: Any) -> str:
        text = f"warning: {message}\n"
        if text in told:
            return ""
        told.add(text)
        return text

    return line


def _define_flags() -> None:
    config_flags.DEFINE_config_file(
        "config", None, "What to train: configs/NAME.py or configs/NAME.py:PRESET."
    )
    flags.DEFINE_string("workdir", None, "Folder of the run; for training runs/NAME-PRESET by default.")
    flags.DEFINE_enum("mode", "train", list(MODES), "What to do.")
    flags.DEFINE_string(
        "data",
        None,
        "Folder for --mode=check_data to read; for modes that read the data of a run, where these are now.",
    )
    flags.DEFINE_string("against", None, "Second folder, in which check_data looks for copies.")
    flags.DEFINE_string(
        "input", None, "Folder of pictures and volumes for --mode=enhance and --mode=upscale."
    )
    flags.DEFINE_string("output", None, "Folder that --mode=enhance and --mode=upscale write to.")
    flags.DEFINE_list("workdirs", None, "Folders of evaluated runs, for --mode=compare.")
    flags.DEFINE_bool(
        "fresh",
        False,
        "Start over: delete the run in the workdir, or what this mode wrote there or in --output before.",
    )
    flags.DEFINE_string(
        "distributed",
        None,
        "Train with several processes: auto (SLURM, Open MPI and clouds tell it themselves) or "
        "HOST:PORT,PROCESSES,INDEX, the same HOST:PORT of process 0 for all.",
    )
    flags.DEFINE_bool("dry_run", False, "Check config and data, print the networks' sizes, train nothing.")
    for name, of_mode in STAGES.items():
        config_flags.DEFINE_config_dict(name, ConfigDict(of_mode), f"Options of --mode={name}.")


def _help(words: Sequence[str]) -> str:
    """What --help prints: of everything, of one mode, or of the keys of a config."""
    mode, config = value_of(words, "mode"), value_of(words, "config")
    if mode in STAGES:
        rows = {f"{mode}.{name}": option for name, option in options.MODES[mode].items()}
        return f"Options of --mode={mode}; --help alone has the flags of all modes.\n\n{options.told(rows)}"
    if config:
        rows = options.of_config(load_config(config))
        return f"Keys of {config}; --help alone has the flags of all modes.\n\n{options.told(rows)}"
    known = {flag.name: flag for flag in FLAGS.get_flags_for_module(sys.argv[0]) if flag.name not in STAGES}
    rows = {
        name: options.Option("" if flag.default is None else flag.default, flag.help.replace("|", ", "))
        for name, flag in known.items()
    }
    return (
        f"{__doc__}\nFlags:\n\n{options.told(rows)}\n\nA mode's own: --mode=sample --help, and likewise "
        f"{', '.join(name for name in STAGES if name != 'sample')}.\n"
        "A config's keys: --config=configs/ghost.py --help."
    )


def _dispatch() -> int:
    """Do what --mode says; the exit status. JAX takes seconds to import: only what needs it imports it."""
    _check_read()
    _check_needed()
    compiled.keep()
    return MODES[FLAGS.mode].do()


def _check_read() -> None:
    """Refuse flags that the mode would pass over."""
    mode = FLAGS.mode
    for name in sorted({flag for of in MODES.values() for flag in of.reads}):
        if FLAGS[name].present and name not in MODES[mode].reads:
            where = [other for other, of in MODES.items() if name in of.reads]
            hint = HINTS.get((name, mode), f"it is for --mode={', '.join(where)}")
            raise UsageError(f"--{name}: --mode={mode} has no use for it; {hint}")


def _check_needed() -> None:
    """Refuse the lack of a flag that the mode needs, and what takes another one along."""
    mode, asked = FLAGS.mode, MODES[FLAGS.mode]
    if mode == "train" and FLAGS.config is None:
        raise UsageError(f"--config is missing; {with_config(FLAGS.workdir)}")
    if not all(FLAGS[name].value for name in asked.needs):
        raise UsageError(f"--mode={mode} needs {', and '.join(asked.needs.values())}")
    if mode == "sample" and FLAGS.config is not None and FLAGS.sample.painter != "copy_paste":
        raise UsageError(f"--config: {_FROM_RUN}, unless pixels are copied (--sample.painter=copy_paste)")
    if mode == "demo" and FLAGS.data and not FLAGS.workdir:
        raise UsageError("--data says where the data of a run are now; give --workdir, its folder")


# ---------------------------------------------------------------- training


def _train() -> int:
    config = configs.plain(FLAGS.config)
    workdir = Path(FLAGS.workdir or f"runs/{config['name']}-{config['preset']}")
    if "systems" in config:
        return _study(config, workdir)
    if FLAGS.dry_run:
        from pixmed_jax.training.dry_run import dry_run

        return dry_run(config, workdir)
    if FLAGS.distributed:
        _join(FLAGS.distributed)
    from pixmed_jax.training import mesh
    from pixmed_jax.training.loop import train

    status = train(config, workdir, fresh=FLAGS.fresh)
    if status == 0 and not FLAGS.distributed:
        _after_training(config, workdir)
    elif status == 0 and mesh.is_first():  # evaluation needs one process, and those here are joined
        print(f"next: {program()} --workdir={quote(str(workdir))} --mode=evaluate")
    return status


def _study(config: dict[str, Any], workdir: Path) -> int:
    if FLAGS.distributed:
        raise UsageError("--distributed trains one run; a study has many, so leave it out")
    from pixmed_jax.study import study, study_dry_run

    return study_dry_run(config, workdir) if FLAGS.dry_run else study(config, workdir, fresh=FLAGS.fresh)


def _after_training(config: dict[str, Any], workdir: Path) -> None:
    """Evaluate what was trained, and say what to do with it."""
    if _is_empty(workdir, split := FLAGS.evaluate.split):
        print(f"not evaluated: {split} is empty; --mode=evaluate takes --evaluate.split=val")
    else:
        _evaluated(workdir)
    where = quote(str(workdir))
    if mode := RESTORERS.get(config["data"]["condition"]):
        print(f"next: {program()} --mode={mode} --{mode}.workdir={where} --input=DIR --output=TO")
    elif "network" not in config["model"]:  # which makes no images
        from pixmed_jax.data.synthetic import TO_TRAIN_WITH

        of_labels = "--mode=sample --sample.number=500 --sample.balance"  # which are nobody's
        how = of_labels if config["data"]["condition"] == "label" else TO_TRAIN_WITH
        print(f"next: {program()} --workdir={where} {how}")


def _is_empty(workdir: Path, split: str) -> bool:
    """Whether a run's record has no slice in any of the splits that are joined by a plus."""
    from pixmed_jax.workdir import read_split

    record = read_split(workdir) or {}
    return all(record.get(name) == {} for name in split.split("+"))


def _join(text: str) -> None:
    """Make this process one of several; blocks until all are there."""
    import jax

    try:
        if text == "auto":
            jax.distributed.initialize()
            return
        address, processes, index = text.split(",")
        jax.distributed.initialize(address, int(processes), int(index))
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"--distributed={text}: {reason}; give auto or HOST:PORT,PROCESSES,INDEX, such as "
            "node1:1234,2,0 on the first and node1:1234,2,1 on the second"
        ) from error


# ---------------------------------------------------------------- modes of a run


def _run() -> Path:
    """The folder of the run that the mode is for: begun, where it may be, and told where its data are now."""
    workdir = Path(FLAGS.workdir)
    if FLAGS.config is not None:
        if "systems" in FLAGS.config:
            raise UsageError(f"--mode={FLAGS.mode} begins one run, and this config is of a study of many")
        from pixmed_jax.training.start import begin

        begin(configs.plain(FLAGS.config), workdir)
    if FLAGS.data:
        from pixmed_jax.same_data import move

        move(workdir, FLAGS.data)
    return workdir


def _sample() -> int:
    from pixmed_jax.sampling import sample

    print(f"written: {sample(_run(), fresh=FLAGS.fresh, **FLAGS.sample.to_dict())}")
    return 0


def _evaluate() -> int:
    _evaluated(_run())
    return 0


def _evaluated(workdir: Path) -> None:
    from pixmed_jax.evaluation.evaluate import evaluate, summary

    print(f"evaluating on the {FLAGS.evaluate.split} split ...", flush=True)  # which takes a while
    print(summary(evaluate(workdir, **FLAGS.evaluate.to_dict())))
    print(f"written: {workdir / 'evaluation.json'} and {workdir / 'report' / 'index.html'}")


def _audit() -> int:
    from pixmed_jax.evaluation.audit import audit, summary

    workdir = _run()
    print(summary(audit(workdir, **FLAGS.audit.to_dict())))
    print(f"written: {workdir / 'audit.json'} and {workdir / 'report' / 'audit.html'}")
    return 0


def _utility() -> int:
    from pixmed_jax.utility import utility

    options_given = FLAGS.utility.to_dict()
    presets = {name: options_given.pop(name) for name in ("segmenter", "classifier")}
    networks = {
        name: load_config(f"{HERE / 'configs' / name}.py:{preset}")
        for name, preset in presets.items()
        if preset
    }
    return utility(_run(), networks=networks, fresh=FLAGS.fresh, **options_given)


def _reader() -> int:
    from pixmed_jax.evaluation import readers

    workdir, options_given = _run(), FLAGS.reader.to_dict()
    if answers := options_given.pop("answers"):
        print(readers.summary(readers.score(workdir, answers)))
        print(f"written: {workdir / 'reader.json'} and {workdir / 'report' / 'reader.html'}")
    else:
        page = readers.prepare(workdir, fresh=FLAGS.fresh, **options_given)
        print(f"written: {page}, for the readers, and {page.with_name('key.csv')}, not for them")
    return 0


def _export() -> int:
    from pixmed_jax.export import export

    workdir = _run()
    results = export.export(workdir, **FLAGS.export.to_dict())
    print(export.summary(results))
    if "generator.onnx" in results and not FLAGS.export.web:
        print(f"without a page for browsers: {export.web_page.HOW}")
    print(f"written: {workdir / 'export'}")
    return 0


def _demo() -> int:
    from pixmed_jax.demo.serve import demo

    demo(_run() if FLAGS.workdir else None, **FLAGS.demo.to_dict())
    return 0


# ---------------------------------------------------------------- modes of other folders


def _check_data() -> int:
    from pixmed_jax.check_data import check_data

    print(check_data(FLAGS.data, FLAGS.workdir, against=FLAGS.against, **FLAGS.check_data.to_dict()))
    return 0


def _compare() -> int:
    from pixmed_jax.evaluation.compare import compare

    print(f"written: {compare(list(filter(None, FLAGS.workdirs)), Path(FLAGS.workdir))}")
    return 0


def _enhance() -> int:
    from pixmed_jax.enhancement.enhance import enhance

    return enhance(FLAGS.input, FLAGS.output, fresh=FLAGS.fresh, **FLAGS.enhance.to_dict())


def _upscale() -> int:
    from pixmed_jax.enhancement.upscale import upscale

    return upscale(FLAGS.input, FLAGS.output, fresh=FLAGS.fresh, **FLAGS.upscale.to_dict())


class Mode(NamedTuple):
    """What a mode does, returning the exit status; the flags without which it cannot, and others it reads."""

    do: Callable[[], int]
    needs: Mapping[str, str]  # {flag: what to say of it}
    takes: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        return (*self.needs, *self.takes)


_OF_RUN = {"workdir": "--workdir, the folder of a trained run"}
_FOLDERS = {"input": "--input, a folder", "output": "--output to write to"}
MODES = {
    "train": Mode(_train, {"config": "--config"}, ("workdir", "fresh", "distributed", "dry_run")),
    # Pixels can be copied before anything is trained, and an experiment trains its generators itself.
    "sample": Mode(_sample, _OF_RUN, ("config", "data", "fresh")),
    "evaluate": Mode(_evaluate, _OF_RUN, ("data",)),
    "audit": Mode(_audit, _OF_RUN, ("data",)),
    "utility": Mode(_utility, _OF_RUN, ("config", "data", "fresh")),
    "reader": Mode(_reader, _OF_RUN, ("data", "fresh")),
    "export": Mode(_export, _OF_RUN),
    "demo": Mode(_demo, {}, ("workdir", "data")),  # it has weights of its own
    "compare": Mode(_compare, {"workdirs": "--workdirs, evaluated runs", "workdir": "--workdir to write to"}),
    "check_data": Mode(
        _check_data, {"data": "--data, the folder to read", "workdir": "--workdir to write to"}, ("against",)
    ),
    "enhance": Mode(_enhance, _FOLDERS, ("fresh",)),
    "upscale": Mode(_upscale, _FOLDERS, ("fresh",)),
}
_FROM_RUN = "a trained run has its own, in --workdir; leave it out"
HINTS = {
    ("data", "train"): "training takes --config.data.dir",
    **{("data", mode): "give --input" for mode in ("enhance", "upscale")},
    **{("config", mode): _FROM_RUN for mode in ("evaluate", "audit", "reader", "export", "demo")},
}


if __name__ == "__main__":
    # Tracing makes a million objects that are all needed; to look among them for garbage, as often as Python
    # does unasked, takes a tenth of a start. Of this whole process, so not where somebody calls `main`.
    gc.set_threshold(10_000)
    status = main(sys.argv)
    if status > 128:
        # A program that is still compiled, in a thread of XLA's, would crash as the interpreter ends.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
