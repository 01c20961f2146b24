"""What the stages of a run have measured, as evaluation.json has it, and told once it is measured.

An entry is read off the file of its stage (audit.json, utility.json, reader.json), where that is of the same
checkpoint and config; else it is null with a `why`. A stage that ends later puts its own into evaluation.json
and writes the verdict in report/index.html again.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pixmed_jax import pages, texts, writing
from pixmed_jax import workdir as run_folder
from pixmed_jax.evaluation import verdict
from pixmed_jax.evaluation.arms import BESIDE_PASTED, PASTED

START, END = "<!-- verdict -->", "<!-- end of the verdict -->"


def audited(workdir: Path, step: int, config: str) -> dict[str, Any]:
    """The entry "memorisation": the last audit's, if it was of this step, else why there is none."""
    told = texts.found_object(workdir / run_folder.AUDIT)
    if not told:
        return {"ratio": None, "copies": None, "auc": None, "why": "not measured; run --mode=audit"}
    if (told["step"], told["config"]) != (step, config):
        why = f"the audit was of step {told['step']}; run --mode=audit for this one"
        return {"ratio": None, "copies": None, "auc": None, "why": why}
    return dict(told["memorisation"])


def audited_pairs(workdir: Path, contents: str) -> dict[str, dict[str, Any]]:
    """{"images": an entry "memorisation", "layouts": one where there are maps}, if the last audit was of a
    sampled folder with these `contents` (`synthetic.contents`); else {}.

    Names do not do: another layout model may have the same one, and another folder another seed.
    """
    told = texts.found_object(workdir / run_folder.AUDIT)
    pairs = told.get("pairs") or {}
    if pairs.get("contents") != contents:
        return {}
    return {name: dict(of) for name in ("images", "layouts") if (of := pairs.get("sampled", {}).get(name))}


def used(workdir: Path, config: str) -> dict[str, Any]:
    """The entry "utility": what the last experiment with this config found, else why there is none."""
    result = texts.found_object(workdir / run_folder.UTILITY)
    if not result:
        return {"why": "not measured; run --mode=utility"}
    if result["config"] != config:
        return {"why": "the utility experiment was of another config; run --mode=utility --fresh"}
    return told_of_utility(result)


def told_of_utility(result: Mapping[str, Any]) -> dict[str, Any]:
    """What the verdict needs of utility.json: the one comparison that was fixed beforehand, and how the same
    edits do without a network ("pasted", where it was tried); "copied" where there was no network at all.

    Where utility.json does not say who was tested with each share, it was the same patients with all.
    """
    a, b = result["primary"]
    found = []
    for network, told in result["networks"].items():
        measure, of_shares = next(iter(told["measures"].items()))
        for share, of in of_shares.items():
            best = max((score["value"] for score in of.get("scores", {}).values()), default=None)
            least = (
                told["chance"][share] if "chance" in told else verdict.SEGMENTS if measure == "dice" else None
            )
            found.append(
                {
                    "network": network,
                    "measure": measure,
                    "share": int(share),
                    "patients": result.get("tested_on", {}).get(share, result)["patients"],
                    **_bounds(of["differences"][f"{a}-{b}"]),
                    "pasted": _bounds(of["differences"].get("-".join(BESIDE_PASTED), {})),
                    "detectable": of["power"]["detectable"],
                    "best": best,
                    "least": least,
                }
            )
    facts = {key: result[key] for key in ("seeds", "split", "complete")}
    facts["patients_known"] = result.get("patients_known", True)
    return {**facts, "found": found, "copied": a == PASTED}


def _bounds(difference: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in difference.items() if key != "of_seeds"}


def read_by_people(workdir: Path, step: int, config: str) -> dict[str, Any]:
    """The entry "readers": what the last reader study of this step came to, else why there is none."""
    told = texts.found_object(workdir / run_folder.READER)
    if (told.get("step"), told.get("config")) != (step, config):
        return {"auc": None, "why": "not measured; run --mode=reader"}
    return {
        **{key: told[key] for key in ("study", "auc", "low", "high", "n", "detectable")},
        "readers": len(told["readers"]),
        "telling": sum(of["low"] is not None and of["low"] > 0.5 for of in told["readers"]),
    }


def tell(workdir: Path, entry: str, value: Any, *, config: str, step: int | None = None) -> None:
    """Put what a later stage has measured into evaluation.json, where that is of this config and step (None:
    of any), and into the report.
    """
    path = workdir / run_folder.EVALUATION
    evaluation = texts.found_object(path)
    if evaluation.get("config") == config and step in (None, evaluation.get("step")):
        writing.write_json(path, {**evaluation, entry: value})
    refresh(workdir)


def refresh(workdir: Path) -> bool:
    """Write the verdict in report/index.html again; False where there is no report to write it in."""
    page, path = workdir / "report" / "index.html", workdir / run_folder.EVALUATION
    if not page.exists() or not path.exists():
        return False
    text = page.read_text(encoding="utf-8")
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        return False
    told = verdict.answers(texts.found_object(path))
    part = pages.render("pixmed_jax.evaluation", "verdict.html.j2", answers=verdict.shown(told, workdir))
    writing.write_text(page, f"{before}{part.strip()}{after}")
    return True
