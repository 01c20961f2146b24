"""The command line before its flags are parsed: keys and configs that are not there, what to type instead.

Errors: UsageError.
"""

import difflib
import runpy
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pixmed_jax import config as configs
from pixmed_jax.errors import PixmedError

HERE = Path(__file__).absolute().parents[1]  # where launch.py and configs/ are


_started = HERE / "launch.py"


def started_by(file: str) -> None:
    """Let proposed commands begin with this file: launch.py, or one that calls its `main`."""
    global _started
    _started = Path(file)


def program() -> str:
    """What every command begins with."""
    ours = _started.resolve() == (HERE / "launch.py").resolve()
    return shlex.join(["python", "launch.py" if ours else str(_started)])


class UsageError(Exception):
    """A mistake in the command line, told in one line."""


def check_names(words: Sequence[str], stages: Mapping[str, Mapping[str, Any]]) -> None:
    """Answer an override of a key that does not exist with the nearest names, and refuse another mode's.

    ml_collections would answer with four chained tracebacks, and for a stage's options already while its flag
    is defined. stages: the options of each mode.
    """
    given = [word.lstrip("-").split("=")[0] for word in words if word.startswith("--")]
    known = {f"{stage}.{key}" for stage, options in stages.items() for key in options}
    config, mode = value_of(words, "config"), value_of(words, "mode") or "train"
    if config is not None:
        known |= {f"config.{key}" for key in configs.flatten(load_config(config))}
    for name in given:
        if name.startswith("config.") and config is None:
            how = ", and where its data are now from --data" if name == "config.data.dir" else ""
            raise UsageError(
                f"--{name}: changes --config, which is missing; {with_config(value_of(words, 'workdir'))}"
                if mode == "train"
                else f"--{name}: --mode={mode} takes its config from --workdir{how}; leave it out"
            )
        plain = name if name in known else name.removeprefix("no")  # as a switch is turned off
        if "." in name and plain not in known:
            raise UsageError(f"--{name}: no such key{configs.nearest(name, known)}")
        stage = plain.split(".")[0] if "." in plain else mode
        if stage not in ("config", *_read_by(mode)):
            raise UsageError(f"--{name}: --mode={mode} does not read it; it is of --mode={stage}")


def _read_by(mode: str) -> tuple[str, ...]:
    """The modes whose options this one reads: a training is evaluated at its end."""
    return ("train", "evaluate") if mode == "train" else (mode,)


def value_of(words: Sequence[str], name: str) -> str | None:
    """What a flag is set to in a command line that is not parsed yet, the last time; None if it is not."""
    found = None
    for word, following in zip(words, [*words[1:], ""], strict=False):
        flag, equals, value = word.partition("=")
        if flag.startswith("-") and flag.lstrip("-") == name:
            found = value if equals else following
    return found


def with_config(workdir: str | None) -> str:
    """How to give --config: for a run that is there, the command that goes on with it."""
    from pixmed_jax.workdir import read_config

    try:
        run = read_config(Path(workdir or ""))
        file = _configs()[f"{run['name']}.py"]  # no other file is run, whatever the folder's config says
        preset = configs.flatten(load_config(f"{file}:{run['preset']}"))
        words = [f"--config={_shown(file)}:{run['preset']}"]
        own = {key: value for key, value in configs.flatten(run).items() if key in preset}
        words += [f"--config.{key}={_word(own[key])}" for key in own if own[key] != preset[key]]
    except (PixmedError, UsageError, KeyError):  # no run, or one of a config that does not come with us
        return f"try --config={_shown(HERE / 'configs' / 'ghost.py')}, or --help"
    command = shlex.join(["python", str(_shown(HERE / "launch.py")), *words, f"--workdir={workdir}"])
    return f"to go on with this run: {command}"


def _word(value: Any) -> str:
    """A config's value as a flag takes it."""
    return str(tuple(value)) if isinstance(value, list) else str(value)


def load_config(name: str) -> dict[str, Any]:
    """The config that `FILE.py:PRESET` means, without overrides."""
    path, _, preset = name.partition(":")
    try:
        get_config = runpy.run_path(path)["get_config"]
        return configs.plain(get_config(preset) if preset else get_config())
    except FileNotFoundError as error:
        beside = HERE / path if (HERE / path).is_file() else _nearest_file(path)
        raise UsageError(
            f"--config={path}: no such file in {Path.cwd()}, the folder that the command is given in; try "
            f"--config={_shown(beside)}"
        ) from error
    except (ValueError, SyntaxError, KeyError, ImportError, OSError) as error:
        raise UsageError(f"--config={name}: {error}") from error


def _shown(path: Path) -> Path:
    """A file of ours as commands name it in the current folder."""
    return path.relative_to(HERE) if Path.cwd() == HERE else path


def _configs() -> dict[str, Path]:
    return {file.name: file for file in (HERE / "configs").glob("*.py")}


def _nearest_file(path: str) -> Path:
    """The config beside this file whose name comes closest."""
    files = _configs()
    return files[(difflib.get_close_matches(Path(path).name, files, n=1) or ["ghost.py"])[0]]
