"""The model card of a checkpoint: what it is for, what it was made of, what is known of it, and its limits.

    model_card.json   the facts; `model_card.schema.json` says what must be there
    model_card.md     the same for people, with front matter that model hubs read

After Mitchell et al. 2019, "Model Cards for Model Reporting". Written again whenever a stage has learnt more.
A part that nobody measured says so, with the command that measures it; what nobody stated is called unknown.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixmed_jax import config as configs
from pixmed_jax import pages, texts, writing
from pixmed_jax import workdir as run_folder
from pixmed_jax.evaluation import card_rows, entries, provenance, verdict
from pixmed_jax.training.build import NETWORKS, restores

USES = {
    "images": (
        "Research: synthetic slices to train segmenters and classifiers with, beside real ones, and judged "
        "on real patients whom neither has seen",
        "Teaching, and trying out software that reads such slices",
    ),
    "labels": ("Research on classifying such slices, and judging synthetic ones by it",),
    "masks": ("Research on segmenting such slices, and judging synthetic ones by it",),
    "layouts": (
        "Research: label maps of nobody, from which a generator paints pairs to train segmenters and "
        "classifiers with",
    ),
    "restorations": ("Research on restoring such slices, and enlarging synthetic ones",),
}
NEVER = (
    "Diagnosis, treatment, or any decision about a patient: this is no medical device",
    "Evidence in a study as if the images were of patients",
    "Restoring or sharpening a patient's image: what the condition leaves open is invented",
)
NEVER_LAYOUTS = (
    "Diagnosis, treatment, or any decision about a patient: this is no medical device",
    "Evidence of how often what the masks show is there, how large it is, or where",
)
NEVER_RESTORER = (
    "Diagnosis, treatment, or any decision about a patient: what was lost is guessed, and looks measured",
    "Slices of other scanners, sequences or organs than those it was trained on, without a test on them",
)
NEVER_NETWORK = (
    "Diagnosis, treatment, or any decision about a patient: this is no medical device",
    "Slices of other scanners, sequences or organs than those it was trained on, without a test on them",
)
_NEVER = {"images": NEVER, "layouts": NEVER_LAYOUTS, "restorations": NEVER_RESTORER}
_ROWS = {
    "images": card_rows.of_images,
    "layouts": card_rows.of_layouts,
    "restorations": card_rows.of_restorer,
}


def write(workdir: Path, folder: Path | None = None, step: int | None = None) -> Path:
    """Write the card of a run's checkpoint into `folder`, by default the run's; returns the Markdown's path.

    step: of the checkpoint; by default the one that was evaluated last, or audited.
    """
    facts = collect(workdir, step)
    target = workdir if folder is None else folder
    shown = f"grids/step_{facts['model']['step'] or 0:06d}.png"
    page = pages.render(
        "pixmed_jax.evaluation",
        "model_card.md.j2",
        **facts,
        text=text,
        picture=shown if (target / shown).exists() else "",
    )
    writing.write_json(target / run_folder.MODEL_CARD, facts)
    path = (target / run_folder.MODEL_CARD).with_suffix(".md")
    writing.write_text(path, page)
    return path


def collect(workdir: Path, step: int | None = None) -> dict[str, Any]:
    """What model_card.json holds."""
    config = run_folder.read_config(workdir)
    digest = configs.digest(config)
    evaluation, audit = (_read(workdir / name, digest) for name in (run_folder.EVALUATION, run_folder.AUDIT))
    if step is None:
        step = (evaluation or audit or {}).get("step")
    network = config["model"].get("network")
    makes = NETWORKS[network["name"]][1] if network else "images"
    makes = "restorations" if restores(config) else makes
    results, answers = _results(evaluation, makes, step), []
    if makes == "images":
        known = evaluation if "rows" in results else {}
        known = {
            **known,
            "memorisation": entries.audited(workdir, step or -1, digest),
            "readers": entries.read_by_people(workdir, step or -1, digest),
            "utility": entries.used(workdir, digest),
        }
        answers = [answer._asdict() for answer in verdict.answers(known)]
        for answer in answers:
            del answer["page"]
    data = config["data"]
    cost = evaluation.get("cost", {})
    card = {
        "kind": "model_card",
        "version": 1,
        "model": {
            "name": config["name"],
            "preset": config["preset"],
            "makes": makes,
            "step": step,
            "config": digest,
            "size": data["size"],
            "channels": data["channels"],
            "condition": data["condition"],
            "classes": evaluation.get("classes") or evaluation.get("condition", {}).get("classes"),
            "parameters": {name: of["parameters"] for name, of in cost.get("networks", {}).items()} or None,
        },
        "contact": config.get("about", {}).get("contact") or None,
        "use": {
            "intended": list(USES[makes]),
            "out_of_scope": list(_NEVER.get(makes, NEVER_NETWORK)),
        },
        "training_data": provenance.of_data(config, workdir),
        "training": provenance.of_training(config, workdir, step),
        "answers": answers,
        "results": results,
        "inference": [
            {"device": of["device"], "seconds": of["median"], "low": of["low"], "high": of["high"]}
            for of in cost.get("inference", ())
        ],
    }
    if makes == "images":
        card["memorisation"] = _memorisation(known["memorisation"])
        card["utility"] = _utility(known["utility"])
    elif makes == "layouts":  # copies are part of its evaluation
        unknown = missing("evaluate")
        card["memorisation"] = _memorisation(evaluation["memorisation"]) if "rows" in results else unknown
    return {**card, "limits": _limits(card)}


def missing(mode: str, why: str = "Not evaluated") -> dict[str, str]:
    """A part of a card that nobody measured, and the command that measures it."""
    return {"missing": f"{why}; run python launch.py --workdir=DIR --mode={mode}"}


def text(value: float | None) -> str:
    """A number to three digits, a small one to two; whole ones whole."""
    if value is None:
        return "–"
    if float(value).is_integer():
        return f"{int(value):,}"
    if abs(value) < 0.01:
        return f"{value:.2g}"
    return f"{value:.3f}" if abs(value) < 1 else f"{value:#.3g}" if abs(value) < 100 else f"{value:,.0f}"


def _read(path: Path, digest: str) -> dict[str, Any]:
    """The contents of a file that is about this config, else nothing."""
    told = texts.found_object(path)
    return told if told.get("config") == digest else {}


def _results(evaluation: Mapping[str, Any], makes: str, step: int | None) -> dict[str, Any]:
    if not evaluation:
        return missing("evaluate")
    if evaluation["step"] != step:
        return missing("evaluate", f"Not evaluated at this step, but at {evaluation['step']}")
    rows = _ROWS.get(makes, card_rows.of_network)(evaluation)
    return {
        **{key: evaluation[key] for key in ("n", "split", "split_by")},
        "patients": evaluation["patients"] if evaluation.get("patients_known", True) else None,
        "rows": [row._asdict() for row in rows],
        "artefacts": (evaluation.get("artefacts") or {}).get("found"),
        "bytes_per_slice": evaluation.get("condition", {}).get("bytes_per_slice"),
        "blur": evaluation.get("blur"),
    }


def _memorisation(found: Mapping[str, Any]) -> dict[str, Any]:
    if found.get("copies") is None:
        known = found.get("ratio") is not None  # asked, without an answer
        return {"missing": found["why"]} if known else missing("audit", _reason(found))
    return {
        "n": found["n"],
        "patients": found["patients"],
        "rows": [row._asdict() for row in card_rows.of_memorisation(found)],
    }


def _reason(found: Mapping[str, Any]) -> str:
    """Why there is nothing, as the verdict says it, without the command behind it."""
    why = found["why"].partition("; run")[0]
    return "Not evaluated" if why == "not measured" else why[0].upper() + why[1:]


def _utility(utility: Mapping[str, Any]) -> dict[str, Any]:
    if not utility.get("found"):
        return missing("utility", _reason(utility))
    facts = {key: utility[key] for key in ("seeds", "split", "complete")}
    return {**facts, "rows": [row._asdict() for row in card_rows.of_utility(utility)]}


def _limits(card: Mapping[str, Any]) -> list[str]:
    """What the facts themselves say against it."""
    model, data, results = card["model"], card["training_data"], card["results"]
    train = (data["split"] or {}).get("train", {})
    known = train.get("patients")
    seen = f"{known} patients" if known else "patients whose number is unknown"
    told = [
        f"Learnt from {text(train.get('slices'))} slices of {seen}: what these do not show it does not know",
        f"Sees and makes {model['size']} x {model['size']} pixels, single slices without their neighbours",
    ]
    if data["source"] == "phantom":
        told.append("Trained on drawn phantoms: nothing here says how it does on patients")
    if model["makes"] == "images":
        told.append(limit_of(model["condition"]))
    if data["split_by"] == "slice":
        alike = "are" if known else "may be"
        told.append(f"The split is by slice: patients {alike} in training and test alike: results flatter it")
    if "rows" in results:
        if "train" in results["split"].split("+"):
            told.append("It was evaluated on slices that it was trained on")
        judged = f"{results['patients']} patients" if results["patients"] else "patients nobody can count,"
        told.append(
            f"Judged on {judged} of the same source, and by one training: other scanners, hospitals and "
            "seeds were not looked at"
        )
    return told


def limit_of(condition: str) -> str:
    """What the condition of a generator leaves open."""
    if condition == "anatomy":
        return (
            "Told a patient's tissue map: what is drawn from it stays recognisably that patient, and high "
            "SSIM measures obedience to the map"
        )
    if condition == "label":
        return "Told a class alone: there are no masks, and no image belongs to a real slice"
    return "Told a mask: what is around it is the generator's invention"
