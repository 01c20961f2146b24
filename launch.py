"""PixMed-Enhancer in JAX: train a generator of MR slices from tumour masks, sample from it, evaluate it.

Train (the same command resumes; --fresh starts over):
  python launch.py --config=configs/ghost.py
  python launch.py --config=configs/ghost.py --config.data.source=folder --config.data.dir=DIR --workdir=runs/mine
  python launch.py --config=configs/ghost.py:paper --config.data.dir=DIR --dry_run

Then, from the run's folder alone:
  python launch.py --workdir=runs/mine --mode=sample --sample.number=500 --sample.balance --sample.output=DIR
  python launch.py --workdir=runs/mine --mode=evaluate

Exit status: 0 done, 1 a fault told in one line, 2 a mistake in the command line, 130 or 143 stopped by Ctrl-C or
SIGTERM with the run saved.
"""

import sys
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from pixmed_jax import config as configs
from pixmed_jax.errors import PixmedError

MODES = ("train", "sample", "evaluate")
FLAGS = flags.FLAGS
_CONFIG = config_flags.DEFINE_config_file("config", None, "Experiment to train: configs/NAME.py or configs/NAME.py:PRESET.")
flags.DEFINE_string("workdir", None, "Folder of the run; default for training: runs/NAME-PRESET.")
flags.DEFINE_enum("mode", "train", MODES, "What to do.")
flags.DEFINE_bool("fresh", False, "Delete the run in the workdir and start over.")
flags.DEFINE_bool("dry_run", False, "Check the config, open a batch, print the networks' sizes, and exit.")
_STAGES = {
    "sample": {
        "masks": "", "split": "test", "label": "", "number": 0, "seed": 0,
        "balance": False, "output": "", "step": 0, "batch_size": 8,
    },
    "evaluate": {"split": "test", "seed": 0},
}  # fmt: skip
for _name, _defaults in _STAGES.items():
    config_flags.DEFINE_config_dict(_name, ConfigDict(_defaults), f"Options of --mode={_name}.")


def main(argv: list[str]) -> int:
    try:
        FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        print(f"launch.py: {_explain(argv, error)}", file=sys.stderr)
        return 2
    try:
        return _dispatch()
    except PixmedError as error:
        print(f"launch.py: {error}", file=sys.stderr)
        return 1


def _dispatch() -> int:
    # JAX takes seconds to import; it is not needed for --help or for a mistyped flag.
    if FLAGS.mode == "train":
        if FLAGS.config is None:
            raise PixmedError("--config is missing; try --config=configs/ghost.py, or --help")
        config = configs.plain(FLAGS.config)
        workdir = Path(FLAGS.workdir or f"runs/{config['name']}-{config['preset']}")
        if FLAGS.dry_run:
            from pixmed_jax.training.dry_run import dry_run

            return dry_run(config, workdir)
        from pixmed_jax.training.loop import train

        status = train(config, workdir, fresh=FLAGS.fresh)
        if status == 0:
            _evaluate(workdir)
            print(f"next: python launch.py --workdir={workdir} --mode=sample")
        return status

    if FLAGS.workdir is None:
        raise PixmedError(f"--mode={FLAGS.mode} needs --workdir, the folder of a trained run")
    if FLAGS.config is not None:
        raise PixmedError(f"--mode={FLAGS.mode} takes its config from --workdir; leave --config out")
    workdir = Path(FLAGS.workdir)
    if FLAGS.mode == "sample":
        from pixmed_jax.sampling import sample

        print(f"written: {sample(workdir, **FLAGS.sample.to_dict())}")
    else:
        _evaluate(workdir)
    return 0


def _evaluate(workdir: Path) -> None:
    from pixmed_jax.evaluation.evaluate import evaluate, summary

    print(summary(evaluate(workdir, **FLAGS.evaluate.to_dict())))
    print(f"written: {workdir / 'evaluation.json'} and {workdir / 'report' / 'index.html'}")


def _explain(argv: list[str], error: Exception) -> str:
    """A parsing error in one line, with the nearest names for one that does not exist."""
    given = [word.lstrip("-").split("=")[0] for word in argv[1:] if word.startswith("--")]
    known = {f"{stage}.{key}" for stage, options in _STAGES.items() for key in options}
    try:
        config = next(word.split("=", 1)[1] for word in argv if word.startswith("--config="))
        alone = flags.FlagValues()
        config_flags.DEFINE_config_file("config", flag_values=alone)
        alone([argv[0], f"--config={config}"])
        known |= {f"config.{key}" for key in configs.flatten(configs.plain(alone.config))}
    except StopIteration:
        pass
    except FileNotFoundError:
        return f"--config={config}: no such file; try configs/ghost.py"
    except ValueError as wrong:
        return f"--config={config}: {wrong}"
    for name in given:
        stem = name.split(".")[0]
        if "." in name and stem in ("config", *_STAGES) and name not in known and name.removeprefix("no") not in known:
            return f"--{name}: no such key{configs.nearest(name, known)}"
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main(sys.argv))
