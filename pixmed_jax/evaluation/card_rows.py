"""Numbers of evaluation.json, audit.json and utility.json as rows: each with its interval and what it stands
beside (floors, baselines, chance), since none of them means anything alone.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pixmed_jax.evaluation.rows import JUDGED, at
from pixmed_jax.metrics.distribution import LOOKUP, SAME

_REGIONS = {"full": "whole image", "head": "in the head", "tumor": "in the mask"}
_CLOSE = {"ssim": "SSIM", "psnr": "PSNR, dB"}
_BASELINES = {
    "class_means": "each class of the map in its mean grey value",
    "mean_image": "mean training image",
    "nearest_mask": "nearest-mask training slice",
    "same_label": "a training slice of that class, or of any where none has it",
    "own_style": "the same map in the real slice's own style",
}
_SETS = {
    "kid": "KID",
    "fid": "FID",
    "precision": "precision",
    "recall": "recall",
    "density": "density",
    "coverage": "coverage",
}
_BETTER_LESS = ("log_loss", "hausdorff95")


class Row(NamedTuple):
    """A number, its 95 % interval where there is one, and {name: value} of what it is held against."""

    name: str
    value: float
    low: float | None
    high: float | None
    better: str  # "more", "less", or "" where neither is
    beside: dict[str, float]


def row(name: str, value: Any, bounds: Any = None, *, better: str = "", **beside: Any) -> list[Row]:
    """A row, or none where there is no value; what is None is left out of `beside`."""
    if value is None:
        return []
    low, high = bounds or (None, None)
    told = {key: float(of) for key, of in beside.items() if of is not None}
    return [Row(name, float(value), low, high, better, told)]


def of_images(evaluation: Mapping[str, Any]) -> list[Row]:
    """Of a generator: closeness to the real slice, likeness to real ones as a set, the mask, variety."""
    rows: list[Row] = []
    for metric, title in _CLOSE.items():
        for region, where in _REGIONS.items():
            beside = {
                _BASELINES[name]: at(of, metric, region) for name, of in evaluation["baselines"].items()
            }
            bounds = at(evaluation, "intervals", metric, region)
            value = at(evaluation, metric, region)
            rows += row(f"{title}, {where}", value, bounds, better="more", **beside)
    for name, title in _SETS.items():
        of = evaluation[name]
        less = "less" if name in ("kid", "fid") else "more"
        beside = _beside(of)
        low = of.get("low")
        bounds = None if low is None else (low, of["high"])
        told = f"{title}, features: {of.get('features', 'unknown')}" if name in ("kid", "fid") else title
        rows += row(told, of["value"], bounds, better=less, **beside)
    dice = evaluation["mask_dice"]
    rows += row(
        "Dice of a segmenter of real slices with the mask",
        dice.get("generated"),
        at(dice, "intervals", "generated"),
        better="more",
        **{"on the real slices": dice.get("real"), "on class means": dice.get(LOOKUP)},
        **{"with other patients' masks": dice.get("other_mask")},
    )
    lpips = evaluation["lpips"]
    bounds = None if lpips.get("low") is None else (lpips["low"], lpips["high"])
    beside = {_BASELINES.get(k, k): v for k, v in lpips.get("baselines", {}).items()}
    rows += row(f"LPIPS, {lpips.get('network')}", lpips.get("value"), bounds, better="less", **beside)
    spread = at(evaluation, "diversity", "spread") or {}
    bounds = (spread["low"], spread["high"]) if spread else None
    title = "difference between images, in units of real ones'"
    of_real: dict[str, Any] = {"real ones": 1.0} if spread else {}
    rows += row(title, spread.get("ratio"), bounds, **of_real)
    return rows


def _beside(of: Mapping[str, Any]) -> dict[str, Any]:
    """What real slices have in the place of generated ones: the same patients' where these were known."""
    if of.get(SAME) is not None:
        return {"other slices of the same patients": of[SAME], "class means": of.get(LOOKUP)}
    return {"between real patients": of.get("floor"), "two halves of them": of.get("halves")}


def of_restorer(evaluation: Mapping[str, Any]) -> list[Row]:
    """Of what restores images: closeness to the real slice, and likeness to real ones as a set."""
    contenders = dict(evaluation["contenders"])
    own = contenders.pop("network")
    rows: list[Row] = []
    for metric, title in _CLOSE.items():
        for region, where in _REGIONS.items():
            beside = {name: at(of, metric, region, "value") for name, of in contenders.items()}
            of = own[metric][region]
            rows += row(f"{title}, {where}", of["value"], of["interval"], better="more", **beside)
    kid = evaluation["kid"]["network"]
    others = {name: of["value"] for name, of in evaluation["kid"].items() if name != "network"}
    bounds = None if kid["value"] is None else (kid["low"], kid["high"])
    return rows + row("KID", kid["value"], bounds, better="less", **_beside(kid), **others)


def of_layouts(evaluation: Mapping[str, Any]) -> list[Row]:
    """Of what draws label maps: how many are no slices, in which plane they lie, and what they show of each
    class, as the distance of its distribution from that of held-out patients.
    """
    refused, planes = evaluation["refused"], evaluation.get("planes") or {}
    rows = row("share of draws refused", refused["drawn"], better="less", **{"of real maps": refused["real"]})
    beside = {"of real maps": planes.get("real")}
    title = "share of draws whose nearest training map is of the plane told"
    rows += row(title, planes.get("drawn"), better="more", **beside)
    for name, of in evaluation["shares"].items():
        title = f"share of {name}: distance of distributions (Kolmogorov and Smirnov)"
        rows += row(title, of["apart"], better="less", **{"training patients": of["floor"]})
    return rows


def of_network(evaluation: Mapping[str, Any]) -> list[Row]:
    """Of a classifier or a segmenter."""
    rows: list[Row] = []
    base = evaluation.get("baseline")
    for name, title in JUDGED.items():
        bounds = at(evaluation, "intervals", name)
        beside = {f"always {base['label']}": base["accuracy"]} if base and name == "accuracy" else {}
        less = "less" if name in _BETTER_LESS else "more"
        known = bounds if bounds and None not in bounds else None
        rows += row(title, evaluation.get(name), known, better=less, **beside)
    return rows


def of_memorisation(found: Mapping[str, Any]) -> list[Row]:
    """Of an audit: copies, near ones, and the two attacks beside a guess."""
    rows = row(
        "copies of a training slice", found["copies"], better="less", **{"images looked at": found["n"]}
    )
    expected = {"expected of strangers": found["near_expected"]}
    rows += row("images near a training slice", found["near"], better="less", **expected)
    chance = {"a guess": 0.5}
    title = "AUC of guessing who was trained on"
    rows += row(title, found["auc"], found["auc_interval"], better="less", **chance)
    drawn = found.get("recognition")
    if drawn:
        who = "slice" if found["patients"]["held_out"] is None else "patient"
        title = f"the same, with the {who}'s own map"
        rows += row(title, drawn["auc"], drawn["auc_interval"], better="less", **chance)
        of = drawn["held_out"]
        title = f"share of slices from a {who}'s own map that are nearest to that {who}"
        rows += row(title, of["recognised"], of["interval"], better="less", chance=drawn["chance"])
    return rows


def of_utility(utility: Mapping[str, Any]) -> list[Row]:
    """Of a utility experiment: what synthetic slices gain beside augmentation, each share of the patients."""
    rows: list[Row] = []
    for of in utility["found"]:
        trained, tested = f"{of['share']} % of the patients", f"{of['patients']} unseen ones"
        title = f"{of['network']}'s {of['measure']}, {trained}, on {tested}: gain"
        least = {"the least that would be seen": of["detectable"]}
        rows += row(title, of["value"], (of["low"], of["high"]), better="more", **least)
    return rows
