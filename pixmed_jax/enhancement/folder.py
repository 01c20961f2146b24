"""A folder of pictures through a method into another folder: what --mode=enhance and --mode=upscale share.

    OUTPUT/NAME           every file under its own name and in its own kind (enhancement/files.py)
    OUTPUT/settings.json  input, options, the method, what was chosen for each file, scores, files that failed
    OUTPUT/scores.csv     file, slice, contender and the metrics; only where there is a reference
    OUTPUT/report.html    before and after, scores with intervals, settings; needs no other file

The reference of a picture is the file of its name in another folder, or the picture itself where the method
is given it degraded. Volumes are scored in the units of their files, as they are written, between the limits
of the reference: scaled by its own extremes, a dark volume would be as bright as its reference. A file that
cannot be used is told in a line and the others go on. The folder appears whole or not at all, and takes the
place of an earlier one only if this stage wrote all that is there, from the same input with the same options.
Errors: PixmedError if nothing can be done.
"""

import sys
import time
import zlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pixmed_jax import texts, writing
from pixmed_jax import workdir as run_folder
from pixmed_jax.data import intensity as intensities
from pixmed_jax.data.pairs import slice_name
from pixmed_jax.data.values import stored, unit
from pixmed_jax.enhancement import page
from pixmed_jax.enhancement.files import Folder, output_name, write
from pixmed_jax.enhancement.method import Degrade, Method, Output
from pixmed_jax.enhancement.scores import BEFORE, Score, compared, summary, table
from pixmed_jax.errors import OptionError, PixmedError, listing
from pixmed_jax.progress import watched

SETTINGS, SCORES, REPORT = "settings.json", "scores.csv", "report.html"
_SHOWN = 8  # slices on the page
_PLACES = ("reference", "workdir")  # options that are folders


class Slice(NamedTuple):
    """What came of one slice; `pictures` are for the page, by their captions."""

    image: np.ndarray  # as it will be stored
    settings: Mapping[str, Any]
    seconds: float
    scores: Sequence[Score]
    pictures: Mapping[str, np.ndarray]


class Reference(NamedTuple):
    """What the results of a slice are held against."""

    image: np.ndarray  # [H, W, C] float32 in [0, 1]
    limits: intensities.Limits  # what 0 and 1 stand for
    maps: Mapping[str, np.ndarray]  # known of how the slice was degraded


class Stage(NamedTuple):
    """What every slice goes through."""

    folder: Folder
    method: Method
    baselines: Sequence[Method]
    wanted: Folder | None
    degrade: Degrade | None
    seed: int

    def run(self, row: int, *, on_page: bool) -> Slice:
        i, k = self.folder.rows[row]
        name = self.folder.items[i].name
        raw = self.folder.read(row)
        before, reference = self._given(raw, row)
        started = time.perf_counter()
        output = self.method.run(before)
        seconds = time.perf_counter() - started
        image = stored(output.image, raw)
        results = {self.method.name: output._replace(image=unit(image))}
        if on_page or reference:
            results |= {other.name: other.run(before) for other in self.baselines}
        results = {BEFORE: Output(before), **results}
        known: Mapping[str, np.ndarray] = {}
        scores: list[Score] = []
        pictures: dict[str, np.ndarray] = {}
        if reference:
            wanted, limits, known = reference
            if self.degrade:  # by a scale that leaves a rest of its sides
                wanted = wanted[: image.shape[0], : image.shape[1]]
            own = self.folder.limits(row)
            for contender, result in results.items():
                scaled = result._replace(image=intensities.rescaled(result.image, own, limits))
                results[contender] = scaled
                if contender != BEFORE or before.shape == wanted.shape:
                    scores.append(Score(name, k, contender, compared(scaled, wanted, known)))
        if on_page:
            pictures = {contender: result.image for contender, result in results.items()}
            pictures |= {"reference": wanted} if reference else {}
            pictures |= {f"{what}, estimated": values for what, values in output.maps.items()}
            pictures |= {f"{what}, true": values for what, values in known.items()}
        return Slice(image, output.settings, seconds, scores, pictures)

    def _given(self, raw: np.ndarray, row: int) -> tuple[np.ndarray, Reference | None]:
        """(what the method is given, its reference if it has one)"""
        i, k = self.folder.rows[row]
        name, image = self.folder.items[i].name, unit(raw)
        if self.degrade:
            worse = self.degrade(image, np.random.default_rng([self.seed, zlib.crc32(name.encode()), k]))
            # In as many bits as the file has: a dark picture is short of grey values, too.
            return unit(stored(worse.image, raw)), Reference(image, self.folder.limits(row), worse.maps)
        its = self.wanted.row_of(name, k) if self.wanted else None
        if self.wanted is None or its is None:
            return image, None
        return image, Reference(unit(self.wanted.read(its)), self.wanted.limits(its), {})


def process(
    source: Path,
    target: Path,
    method: Method,
    *,
    stage: str,
    baselines: Sequence[Method] = (),
    reference: Path | None = None,
    degrade: Degrade | None = None,
    seed: int = 0,
    intensity: str = "auto",
    options: Mapping[str, Any] | None = None,
    fresh: bool = False,
) -> int:
    """Run `method` over `source` into `target`; 0, or 1 if a file could not be used.

    stage: the mode, "enhance" or "upscale", as messages and the record call it.
    baselines: what the method is compared with; they are scored and shown, not written.
    reference, degrade: where references come from; at most one of the two.
    intensity: how values of volumes become [0, 1] (data/intensity.py).
    options: those of the mode as they were given; an earlier `target` of others is replaced only if `fresh`.
    """
    if reference and degrade:
        raise OptionError(f"{stage}.degrade: makes references of its own; leave {stage}.reference out")
    try:
        intensities.parse(intensity, f"{stage}.intensity")
    except PixmedError as error:
        raise OptionError(str(error)) from error
    source, target = source.absolute(), target.absolute()
    reference = reference.absolute() if reference else None
    _check_places(source, target, reference, stage)
    asked = {name: _place(value) if name in _PLACES else value for name, value in (options or {}).items()}
    if not fresh:
        _check_same(target, stage, _place(str(source)), asked)
    folder = Folder(source, intensity, "--input")
    wanted = Folder(reference, intensity, f"--{stage}.reference") if reference else None
    if wanted:
        _check_names(folder, wanted, stage)
    work = Stage(folder, method, baselines, wanted, degrade, seed)
    shown_rows = {round(x) for x in np.linspace(0, len(folder.rows) - 1, min(_SHOWN, len(folder.rows)))}
    progress = iter(watched(folder.rows, len(folder.rows), f"{stage}: slices"))
    files: dict[str, dict[str, Any]] = {}
    faults: dict[str, str] = {}
    scores: list[Score] = []
    shown: list[page.Shown] = []
    times: dict[tuple[int, ...], list[float]] = {}  # by the shape of what came out
    with writing.replaced(target, "--output") as draft:
        last = 0
        for item in folder.items:
            rows, slices = range(last, last := last + item.shape[0]), []
            try:
                for row in rows:
                    slices.append(work.run(row, on_page=row in shown_rows))
                    next(progress)
                name = output_name(item)
                if name in {SETTINGS, SCORES, REPORT} | {file["output"] for file in files.values()}:
                    raise PixmedError(f"another file is written as {name}; rename one of the two")
                write(draft, item, [done.image for done in slices], folder.limits(rows[-1]))
            except PixmedError as error:
                told = str(error) if item.name in str(error) else f"{item.name}: {error}"
                print(told, file=sys.stderr)
                for root in filter(None, (source, reference)):  # the report is handed on
                    told = told.replace(f"{root}/", "")
                faults[item.name] = told
                for _ in rows[len(slices) :]:
                    next(progress)
                continue
            files[item.name] = {"output": name, "settings": [dict(done.settings) for done in slices]}
            for k, done in enumerate(slices):
                times.setdefault(done.image.shape, []).append(done.seconds)
                scores += done.scores
                if done.pictures:
                    shown.append(page.Shown(slice_name(item, k), done.pictures, done.settings))
        if not files:
            told = listing(list(faults.values()), 5)
            raise PixmedError(f"{source}: none of {len(faults)} files can be used: {told}")
        known = _known(method, {score.file for score in scores})
        about = {
            "stage": stage,
            "input": _place(str(source)),
            "options": asked,
            "reference": str(reference) if reference else "",
            "degraded": degrade is not None,
            "seed": seed,
            "intensity": intensity,
            "method": {"name": method.name, **method.settings},
            "baselines": [{"name": other.name, **other.settings} for other in baselines],
            "seconds_a_slice": _seconds(times.values()),
            "files": files,
            "faults": faults,
            "others": folder.others,
            "scores": summary(scores, method.name),
            "known": known,
        }
        writing.write_json(draft / SETTINGS, about)
        if scores:
            writing.write_text(draft / SCORES, table(scores))
        writing.write_text(draft / REPORT, page.render(about, shown))
    print(f"written: {target}, {len(files)} of {len(folder.items)} files; see {target / REPORT}")
    if known:
        print(
            f"{method.settings['run']}: was trained on files of {len(known)} of the names that are scored "
            f"({listing(known, 5)}); of what it knows scores are too good",
            file=sys.stderr,
        )
    if folder.others:
        told = f"{len(folder.others)} files of other kinds, or called as masks, in {source} were left alone"
        print(f"{told}: {listing(folder.others, 5)}", file=sys.stderr)
    if faults:
        print(f"{len(faults)} of {len(folder.items)} files could not be used", file=sys.stderr)
    return 1 if faults else 0


def _known(method: Method, scored: Collection[str]) -> list[str]:
    """Those of the scored files that are named as one that the method's network was trained on."""
    seen = run_folder.trained_on(Path(method.settings["run"])) if "run" in method.settings else {}
    return sorted({file.split("#")[0] for file in seen or {}} & set(scored))


def _seconds(times: Iterable[Sequence[float]]) -> float:
    """The median; the first of each shape, which is compiled for, counts only where there is no second."""
    times = list(times)
    again = [seconds for of_shape in times for seconds in of_shape[1:]]
    return float(np.median(again or [of_shape[0] for of_shape in times]))


def _check_places(source: Path, target: Path, reference: Path | None, stage: str) -> None:
    outer = target.resolve()
    places = {"--input": source.resolve()}
    if reference:
        places[f"--{stage}.reference"] = reference.resolve()
    for flag, place in places.items():
        if place == outer or place in outer.parents or outer in place.parents:
            raise PixmedError(f"--output={target}: is {flag}, or one lies in the other; give another folder")
    if not _is_ours(target):
        raise PixmedError(f"{target}: holds other files; give an empty folder as --output")


def _is_ours(target: Path) -> bool:
    """Whether `target` may be replaced: it is not there, empty, or this stage wrote all that it holds."""
    if not target.exists():
        return True
    if not target.is_dir():
        return False
    files_there = (p for p in target.rglob("*") if not p.is_dir() and not writing.is_bystander(p.name))
    there = {p.relative_to(target).as_posix() for p in files_there}
    try:
        files = texts.read_object(target / SETTINGS)["files"] if there else {}
        return there <= {SETTINGS, SCORES, REPORT} | {file["output"] for file in files.values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _check_same(target: Path, stage: str, source: str, options: Mapping[str, Any]) -> None:
    """PixmedError, if `target` holds what was made of another input or with other options."""
    if not (target / SETTINGS).exists():
        return
    about = texts.read_object(target / SETTINGS)  # which `_is_ours` has read
    try:
        theirs = _flags(about["stage"], about["input"], about["options"])
    except (KeyError, AttributeError):
        told = "by an older version"
    else:
        ours = _flags(stage, source, options)
        other = [f"--{name}={value}" for name, value in theirs.items() if ours.get(name) != value]
        if not other:
            return
        told = f"with {listing(other, 5)}"
    raise PixmedError(
        f"{target}: holds other results, made {told}; give another --output, or --fresh to replace them"
    )


def _flags(stage: str, source: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a folder was made with, by the names that the command line has for it."""
    return {"mode": stage, "input": source, **{f"{stage}.{name}": value for name, value in options.items()}}


def _place(folder: str) -> str:
    """A folder by the one name it has, wherever it is seen from; "" for none."""
    return str(Path(folder).resolve()) if folder else ""


def _check_names(folder: Folder, wanted: Folder, stage: str) -> None:
    names = {item.name for item in folder.items}
    missing = sorted(names - {item.name for item in wanted.items})
    if len(missing) == len(names):
        raise PixmedError(
            f"--{stage}.reference={wanted.root}: holds no file of a name in --input; give the folder of the "
            "same names"
        )
    if missing:
        told = listing(missing)
        print(
            f"{len(missing)} of {len(names)} files have no reference, so no scores: {told}", file=sys.stderr
        )
