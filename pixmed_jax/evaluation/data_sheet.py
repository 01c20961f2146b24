"""The data sheet of a sampled folder: what is in it, whom it comes from, what it may be used for.

    data_sheet.json   the facts; `data_sheet.schema.json` says what must be there
    data_sheet.md     the same for people, by the questions of Gebru et al. 2021, "Datasheets for Datasets"

Nothing in it depends on when or where it was made: the same sampling writes the same bytes, as long as
nothing has been audited anew. It quotes the audit of a folder with the very same contents; where no layouts
were drawn and there is none, that of the generator.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pixmed_jax import config as configs
from pixmed_jax import pages, writing
from pixmed_jax.data import synthetic
from pixmed_jax.data.synthetic import DATA_SHEET, RECOMBINED, RECONSTRUCTION, SAMPLED, TO_TRAIN_WITH
from pixmed_jax.evaluation import cards, entries, provenance, verdict

TRAINING = (
    "Training slices for segmenters and classifiers, beside real ones, judged on real patients whom neither "
    "these networks nor the generator have seen"
)
OF_THE_USERS = f"{TRAINING}, and whose masks these are not"
MEASURING = (
    "Measuring: how near the generator comes to the slices of these maps, and what it gives away of them"
)
TEACHING = "Teaching, and trying out software that reads such slices"
# What each grade of a pair means for who would hand it on.
GRADES = {
    RECONSTRUCTION: "patients' own maps, painted again: for measuring only, not to train with or share",
    RECOMBINED: "parts of patients in new arrangements: whose anatomy a slice has stays recognisable, so not "
    "to share",
    SAMPLED: "no patient's map was given, all was drawn by a model: to share, if its audit finds no copies",
    "": "masks of the user's own: whose they are, and so whom the slices show, is not known here",
}


def write(
    folder: Path,
    workdir: Path,
    *,
    config: Mapping[str, Any],
    step: int,
    rows: Sequence[Mapping[str, Any]],
    masks: bool,
    split: str,
    options: Mapping[str, Any],
    why: str,
    traced: bool,
) -> None:
    """Write the sheet of a sampling into its folder.

    config, step: the generator's. rows: the manifest's. masks: whether a folder of masks was drawn from, in
    the place of those of `split`. options: the others of the sampling. why: it is not to train with, "" if it
    is. traced: whether whom its models have seen is on record.
    """
    facts = collect(
        workdir,
        config=config,
        step=step,
        rows=rows,
        masks=masks,
        split=split,
        options=options,
        why=why,
        traced=traced,
        contents=synthetic.contents(folder),
    )
    writing.write_json(folder / f"{DATA_SHEET}.json", facts)
    page = pages.render(
        "pixmed_jax.evaluation",
        "data_sheet.md.j2",
        **facts,
        text=cards.text,
        why=why,
        more=f"python launch.py --workdir=RUN {TO_TRAIN_WITH}",
    )
    writing.write_text(folder / f"{DATA_SHEET}.md", page)


def settings(masks: bool, split: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What was asked for, but for the step; a folder of masks has no name here, a layout model and an
    upscaler have run@step.
    """
    source = {} if "layout" in options else {"masks": "MASKS"} if masks else {"split": split}
    return {**source, **{key: value for key, value in options.items() if value}}


def collect(
    workdir: Path,
    *,
    config: Mapping[str, Any],
    step: int,
    rows: Sequence[Mapping[str, Any]],
    masks: bool,
    split: str,
    options: Mapping[str, Any],
    why: str,
    traced: bool,
    contents: str,
) -> dict[str, Any]:
    """What data_sheet.json holds; `contents`: of the folder, which an audit may have judged."""
    digest, data = configs.digest(config), config["data"]
    anatomy, tumors = (
        {row[whose] for row in rows if row[whose] != row[file]} - {""}  # a slice of its own is no patient
        for whose, file in (("patient_group", "source"), ("tumor_group", "tumor_source"))
    )
    origin = provenance.of_data(config, workdir)
    labels = data["condition"] == "label"
    layout = options.get("layout")
    copied = options.get("painter") == "copy_paste"
    if copied:  # whatever an audit says of the network
        known, told = True, verdict.of_copied_pixels()
    else:
        found = entries.audited_pairs(workdir, contents)
        if not found and layout:
            nothing = {"copies": None, "why": "not measured; run --mode=audit --audit.samples=THIS"}
            found = {"images": nothing, "layouts": nothing}
        elif not found:
            found = {"images": entries.audited(workdir, step, digest)}
        known = all(of.get("copies") is not None for of in found.values())
        told = verdict.of_samples(found)
    network = options.get("upscaler") if "@" in options.get("upscaler", "") else None  # run@step, or a method
    chosen = settings(masks, split, options)
    places = {"layout": "LAYOUT"} if layout else {}
    by = {} if copied else {"step": step}
    given = {**chosen, **places, **({"upscaler": "UPSCALER"} if network else {}), **by}
    words = " ".join(f"--sample.{key}={value}" for key, value in given.items())
    return {
        "kind": "data_sheet",
        "version": 1,
        "generator": {
            "name": config["name"],
            "preset": config["preset"],
            "step": step,
            "config": digest,
            "condition": data["condition"],
        },
        "contact": config.get("about", {}).get("contact") or None,
        "contents": {
            "images": len(rows),
            "size": data["size"] * options.get("upscale", 1),
            "format": options["format"],
            "masks": not labels,
            "labels": dict(sorted(Counter(row["label"] for row in rows).items())),
            "edits": dict(sorted(Counter(row["edit"] for row in rows).items())),
            "grades": dict(sorted(Counter(row["grade"] for row in rows).items())),
            "patients": {"anatomy": len(anatomy) or None, "tumor": len(tumors) or None},
        },
        "drawn_from": "labels" if labels else "layouts" if layout else "masks" if masks else split,
        "layout": layout,
        "upscaler": network,
        "settings": chosen,
        "command": f"python launch.py --workdir=RUN --mode=sample {words}",
        "training_data": origin,
        "privacy": {
            "grades": {name: GRADES[name] for name in sorted({row["grade"] for row in rows})},
            "audited": known,
            "answers": [{k: v for k, v in answer._asdict().items() if k != "page"} for answer in told],
        },
        "use": {
            "intended": [MEASURING if why else OF_THE_USERS if masks else TRAINING, TEACHING],
            "out_of_scope": [*cards.NEVER, *([f"Training: {why}"] if why else [])],
        },
        "loading": _loading(why, labels=labels, form=options["format"], traced=traced),
        "limits": _limits(data["condition"], origin),
    }


def _loading(why: str, *, labels: bool, form: str, traced: bool) -> str | None:
    """The command that trains a network with the folder; None where it would be refused, or should be."""
    if why or form == "nifti":
        return None
    network = "classifier" if labels else "segmenter"
    trust = "" if traced else " --config.data.synthetic_trust=true"
    return (
        f"python launch.py --config=configs/{network}.py --config.data.source=folder --config.data.dir=REAL "
        f"--config.data.synthetic_dir=THIS{trust} --workdir=runs/{network}"
    )


def _limits(condition: str, origin: Mapping[str, Any]) -> list[str]:
    told = [
        "No image was acquired: none is evidence of how a disease looks",
        cards.limit_of(condition),
        "Single slices: neighbours of one volume do not belong together",
        "Not to validate or test on: what is learnt from these has to be judged on real patients who are not "
        "in trained_on.json",
    ]
    if origin["source"] == "phantom":
        told.append("Made by a generator of drawn phantoms: no real patient is behind it, nor like it")
    return told
