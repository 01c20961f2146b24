"""The report's first screen: five questions, each answered in a sentence with the numbers it rests on.

Looks real? Follows the mask? New? Helps? Safe to share? An answer is "yes", "partly", "no" or "not measured",
the last with the command that measures it. `answers` is a pure function of evaluation.json, whose entries
are those of entries.py.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pixmed_jax.command_line import program
from pixmed_jax.errors import listing
from pixmed_jax.metrics import artefacts, distribution

_MODE = re.compile(r"(--mode=\w+(?: --fresh)?)")

# Of generators that are given a class alone: KID in units of the distance between two sets of real patients,
# its floor or half of that of two halves of
# the test patients (which have half as many, and so differ twice as much), whichever is larger, since either
# can fall to 0 by chance: up to twice it, generated images differ from real ones hardly more than patients
# from patients. The mean training image, which nobody takes for a slice, has 150 times the floor (Inception
# features, real slices of 128 x 128).
REAL, REAL_PARTLY = 2.0, 10.0
# Of those that are given the test patients' maps, where other real slices of these patients have a KID of
# about 0: KID in units of what two sets of as many other patients have on average. A yes needs the upper end
# of the interval within half of it, which real slices blurred by half a pixel just miss (64 x 64); class
# means, which nobody takes for slices, lie beyond one.
REAL_OF_MAPS, PARTLY_OF_MAPS = 0.5, 5.0
# Recall in units of its floor: below it a third of what real patients show of each other is never drawn.
VARIED = 0.7
# A segmenter's Dice on generated images in units of its Dice on real ones: a tenth less is little beside what
# the segmenter itself gets wrong on real ones; below 0.7 nearly a third of the overlap is lost. A yes needs
# an interval over patients that leaves that out: few patients whose tumours happen to be found are none.
FOLLOWS, FOLLOWS_PARTLY = 0.9, 0.7
SEGMENTS = 0.3  # Dice on real slices, below which a segmenter is no judge
# AUC of an attack whose interval excludes 0.5: up to 0.6 a guesser who may guess on ten images is right once
# more than a coin; above it single patients can be told.
LEAKS = 0.6
# Times as many near images as strangers would give, by the lower end of the interval: most are no chance.
MANY = 3.0
# Held-out patients, in a reader study of either kind: with fewer no rank test reaches 0.05, what strangers do
# is a guess, and resampling them leaves out the truth too often.
ENOUGH = 6
# Recognised in more than half of the slices: who knows the patient is right more often than not.
RECOGNISED = 0.5
# Why held-out slices of a split by slice show nothing of strangers, and what to do.
_BY_SLICE = (
    "the split is by slice, so held-out slices may be of patients who were trained on, and nobody knows how "
    "close strangers come; give a table of patients (data.meta, data.patient_column) and train with "
    "data.split.by=patient"
)


class Answer(NamedTuple):
    """One of the five questions, its answer, and the numbers that it rests on in a sentence."""

    question: str
    answer: str  # "yes", "partly", "no" or "not measured"
    sentence: str
    page: str  # relative address of where more is said, or ""


def answers(evaluation: Mapping[str, Any]) -> list[Answer]:
    """All five, of what evaluation.json holds; a part that is missing is "not measured"."""
    return [
        _looks_real(evaluation),
        _follows(evaluation),
        _new(evaluation),
        helps(evaluation.get("utility") or {}),
        _safe(evaluation),
    ]


def shown(told: Sequence[Answer], workdir: Path) -> list[dict[str, str]]:
    """Answers as pages show them: where a sentence names a mode to run, "command" is the whole command."""
    rows = []
    for one in told:
        words, mode, rest = (*_MODE.split(one.sentence, maxsplit=1), "", "")[:3]
        command = f"{program()} {shlex.join([f'--workdir={workdir}', *mode.split()])}" if mode else ""
        rows.append({**one._asdict(), "words": words, "command": command, "rest": rest})
    return rows


def of_samples(found: Mapping[str, Mapping[str, Any]]) -> list[Answer]:
    """ "New?" and "Safe to share?" of sampled pairs, from `audited_pairs`' entries."""
    return [
        answer._replace(question=f"Label maps: {answer.question}" if name == "layouts" else answer.question)
        for name, of in found.items()
        for answer in (_new({"memorisation": of}), _safe({"memorisation": of}))
    ]


def of_copied_pixels() -> list[Answer]:
    """The same of slices whose pixels were copied from training slices, by `--sample.painter=copy_paste`."""
    words = "pixels of training slices in new places, not drawn by a network"
    return [Answer(question, "no", _sentence(words), "") for question in ("New?", "Safe to share?")]


def of_folder(pairs: Mapping[str, Any]) -> list[Answer]:
    """The verdict on a sampled folder by audit.json's entry "pairs": each grade by its own question."""
    sampled = pairs.get("sampled", {})
    told = of_samples({name: sampled[name] for name in ("images", "layouts") if sampled.get(name)})
    of_patients = pairs.get("of_patients", {})
    if of_patients:
        every = of_patients.get("all") or next(iter(of_patients.values()))
        words = (
            f"{every['n']} are of patients' maps, and in {every['recognised']:.0%} of them that patient is "
            "the nearest of all: to train with, not to share"
        )
        told.append(Answer("Of patients: Safe to share?", "no", _sentence(words), ""))
    if not told:
        words = "masks of the user's own: whose they are is not known here"
        told.append(Answer("Safe to share?", "not measured", _sentence(words), ""))
    return [answer._replace(page="#pairs") for answer in told]


def _looks_real(evaluation: Mapping[str, Any]) -> Answer:
    question, kid, diversity = "Looks real?", evaluation.get("kid"), evaluation.get("diversity", {})
    told = _told_of_diversity(diversity)
    if diversity.get("collapsed"):
        return Answer(question, "no", _sentence(told), "")
    if not kid or kid.get("value") is None:
        why = f"KID: {kid['why']}" if kid and kid.get("why") else "not measured; run --mode=evaluate"
        return Answer(question, "not measured", _sentence(why, told), "")
    given_maps = evaluation.get("condition", {}).get("name", "label") != "label"
    grade, sentence = (_beside_the_same if given_maps else _beside_others)(kid)
    if grade == "not measured":
        return Answer(question, grade, _sentence(sentence, told), "")
    # A KID near its floor is no more than a KID near its floor: what else was found stands against a yes.
    faults = []
    recall = evaluation.get("recall") or {}
    reach = recall.get(distribution.SAME if given_maps else "floor")
    if recall.get("value") is not None and reach and recall["value"] < VARIED * reach:
        whose = "of other slices of the same patients" if given_maps else "between real patients"
        faults.append(f"recall {recall['value']:.2f}, {reach:.2f} {whose}")
    if marks := artefacts.found(evaluation.get("artefacts") or {}):
        faults.append(f"artefacts: {listing(marks)}")
    readers = evaluation.get("readers") or {}
    people = _told_of_readers(readers)
    if people and readers["low"] is not None and readers["low"] > 0.5:
        faults.append(people)
    elif people:
        told = f"{told}; {people}" if told else people
    if faults and grade == "yes":
        grade = "partly"
    if grade == "yes" and (patients := evaluation.get("patients", ENOUGH)) < ENOUGH:
        grade = "not measured"
        faults.append(f"{patients} patients are too few to say so")
    return Answer(question, grade, _sentence(sentence, told, *faults), "reader.html" if people else "")


def _beside_others(kid: Mapping[str, Any]) -> tuple[str, str]:
    """(grade, why) by how far real patients are from each other: of slices that were made from a class."""
    sentence = _kid(kid)
    if kid.get("floor") is None:
        return "not measured", _joined(sentence, "no floor to hold it against")
    apart = max(kid["floor"], (kid.get("halves") or 0.0) / 2)
    # Where real sets are no distance apart, generated ones are if chance alone does not explain it.
    times = kid["value"] / apart if apart > 0 else 0.0 if kid["low"] <= 0 else np.inf
    grade = "yes" if times <= REAL else "partly" if times <= REAL_PARTLY else "no"
    return grade, f"{sentence}, {apart:.4f} between real patients"


def _beside_the_same(kid: Mapping[str, Any]) -> tuple[str, str]:
    """(grade, why) by other real slices of the same patients: of slices that were made from these patients'
    maps, whose luck is in both sets."""
    sentence, same, apart = _kid(kid), kid.get(distribution.SAME), kid.get("apart")
    if "apart" not in kid:
        return "not measured", _joined(sentence, "without other slices of the same patients; evaluate again")
    if same is None or apart is None or apart <= 0:
        return "not measured", _joined(sentence, "too few patients with several slices to hold it against")
    sentence += f", {same:.4f} of other slices of the same patients"
    sentence = _joined(sentence, f"other patients are {apart:.4f} away on average")
    most, lookup = REAL_OF_MAPS * apart, kid.get(distribution.LOOKUP)
    if lookup is not None:
        sentence = _joined(sentence, f"{lookup:.4f} of class means, which need no network")
        if lookup <= most:
            return "not measured", _joined(sentence, "so these features hardly tell them from slices")
        if kid["value"] >= lookup:
            return "no" if kid["low"] > most else "partly", sentence
    if kid["high"] <= most:
        return "yes", sentence
    return "partly" if kid["value"] <= PARTLY_OF_MAPS * apart else "no", sentence


def _kid(kid: Mapping[str, Any]) -> str:
    return f"KID {kid['value']:.4f} ({kid['low']:.4f} to {kid['high']:.4f})"


def _told_of_readers(readers: Mapping[str, Any]) -> str:
    if readers.get("auc") is None:
        return ""
    count = f"{readers['readers']} reader{'s' if readers['readers'] != 1 else ''}"
    auc, low = f"an AUC of {readers['auc']:.2f}", readers["low"]
    sure = "too few patients for an interval" if low is None else f"{low:.2f} to {readers['high']:.2f}"
    of = f"{readers['n']['generated']} from {readers['n']['real']} real slices"
    several = readers["readers"] > 1 and low is not None and "telling" in readers
    who = f", {readers['telling']} of them by an interval of their own above it" if several else ""
    return f"{count} told {of} with {auc} ({sure}; 0.5 is chance{who})"


def _told_of_diversity(diversity: Mapping[str, Any]) -> str:
    if "spread" not in diversity:
        return ""
    ratio = diversity["spread"]["ratio"]
    told = f"images differ from each other {ratio:.2f} times as much as real ones"
    return f"the generator collapsed: {told}" if diversity["collapsed"] else told


def _follows(evaluation: Mapping[str, Any]) -> Answer:
    question, dice = "Follows the mask?", evaluation.get("mask_dice")
    if evaluation.get("condition", {}).get("name") == "label":
        return Answer(question, "not measured", "The generator is told a class and knows no masks.", "")
    if not dice or dice.get("generated") is None or not dice.get("real"):
        why = (dice or {}).get("why") or "not measured; run --mode=evaluate"
        return Answer(question, "not measured", _sentence(why), "")
    share = dice["generated"] / dice["real"]
    grade = "yes" if share >= FOLLOWS else "partly" if share >= FOLLOWS_PARTLY else "no"
    told = f"a segmenter of real slices finds the mask: Dice {dice['generated']:.3f} on generated images"
    told = f"{told}, {dice['real']:.3f} on real ones"
    if dice["real"] < SEGMENTS:
        return Answer(
            question, "not measured", _sentence(told, "it finds hardly any of it in real slices"), ""
        )
    by_chance = dice.get("other_mask")
    if by_chance is not None and dice["generated"] <= by_chance:
        return Answer(question, "no", _sentence(told, f"{by_chance:.3f} with other patients' masks"), "")
    between = dice.get("share")
    if between:
        times = f"{share:.2f} times that ({between['low']:.2f} to {between['high']:.2f} over patients)"
        told = f"{told}, {times}"
    if distribution.LOOKUP in dice:
        told = f"{told}; {dice[distribution.LOOKUP]:.3f} on class means, which need no network"
    if grade == "yes" and not between:
        why = "no interval over patients: it takes two with a mask, and run --mode=evaluate once more"
        return Answer(question, "not measured", _sentence(told, why), "")
    if grade == "yes" and between["low"] < FOLLOWS_PARTLY:
        told, grade = f"{told}; too few patients for a yes", "partly"
    return Answer(question, grade, _sentence(told), "")


def _new(evaluation: Mapping[str, Any]) -> Answer:
    question, found = "New?", evaluation.get("memorisation", {})
    if found.get("copies") is None:
        return Answer(
            question, "not measured", _sentence(found.get("why") or "not measured; run --mode=audit"), ""
        )
    chance = ""
    if "copies_expected" in found:
        chance = (
            f" (of unrelated slices at most {found['copies_expected']:.1f} are expected to be taken for one)"
        )
    told = [
        f"{found['copies']} of {found['n']} are copies of a training slice{chance}",
        f"{found['near']} stand near one, {found['near_expected']:.1f} expected of unrelated slices",
        _told_of_auc("who was trained on is guessed with an AUC of", found),
    ]
    drawn = found.get("recognition") or {}
    if drawn:
        told.append(_told_of_auc(f"with the {_who(found)}'s own map,", drawn))
    least, rate = found["near_share_interval"][0], found["false_positive_rate"]
    if found["copies"] or least > MANY * rate or _leaks(found) or _leaks(drawn):
        grade = "no"
    elif least > rate or _above(found) or _above(drawn):
        grade = "partly"
    elif _by_slice(found):
        grade = "not measured"
        told.append(_BY_SLICE)
    elif (patients := found["patients"]["held_out"]) < ENOUGH:
        grade = "not measured"
        told.append(f"{patients} held-out patients are too few to call it new")
    else:
        grade = "yes"
    return Answer(question, grade, _sentence(*told), "audit.html")


def helps(utility: Mapping[str, Any]) -> Answer:
    """By what synthetic slices add to classical augmentation, each comparison held against all of them.

    One seed says nothing of how another would come out, so its intervals leave out 0 too often. A gain that
    copied pixels of the same edits surpass beyond chance needs no network, and is no more than "partly".
    """
    question, found = "Helps?", utility.get("found")
    if not found:
        return Answer(
            question, "not measured", _sentence(utility.get("why") or "not measured; run --mode=utility"), ""
        )
    blind = [f for f in found if _learnt_nothing(f)]
    if len(blind) == len(found):
        shown = [
            f"{f['network']}: {f['measure']} is at best {f['best']:.3f} with {f['share']} % of the patients"
            for f in blind
        ]
        why, remedy = "the networks have learnt nothing to add to", "give them more --utility.steps"
        return Answer(question, "not measured", _sentence(why, *shown, remedy), "utility.html")
    found = [f for f in found if f not in blind]
    better = [f for f in found if f["low_all"] > 0]
    worse = [f for f in found if f["high_all"] < 0]
    hints = [f for f in found if f["low"] > 0 and f not in better]
    surpassed = [f for f in better if f.get("pasted") and f["pasted"]["high_all"] < 0]
    grade = ("partly" if worse or better == surpassed else "yes") if better else "no"
    told, pasted = [], []
    for network in dict.fromkeys(f["network"] for f in found):
        own = [f for f in found if f["network"] == network]
        clear = [f for f in own if f in better or f in worse or f in hints]
        shown = sorted({f["share"] for f in (own[0], own[-1], *clear)})
        parts = [f"{_change(f)} with {f['share']} %" for f in own if f["share"] in shown]
        told.append(f"a {network}'s {own[0]['measure']} by {', '.join(parts)} of the patients")
        parts = [
            f"{_change(f['pasted'])} with {f['share']} %"
            for f in own
            if f["share"] in shown and f.get("pasted")
        ]
        pasted += [f"a {network}'s by {', '.join(parts)}"] if parts else []
    limits = dict.fromkeys(f"{of(f['detectable'] for f in found):.3f}" for of in (min, max))
    tested = [f.get("patients", utility.get("patients")) for f in found]
    patients = dict.fromkeys(str(of(tested)) for of in (min, max))
    count = f"{len(found)} comparison{'s' if len(found) != 1 else ''}"
    seen = f"of {count} {len(better)} show a gain and {len(worse)} a loss beyond chance"
    what = "copied pixels" if utility.get("copied") else "synthetic slices"
    sentence = f"beside classical augmentation, {what} change {', '.join(told)}"
    seeds = f"{utility['seeds']} seed{'s' if utility['seeds'] != 1 else ''}"
    whom = "patients" if utility.get("patients_known", True) else "slices"
    power = f"{' to '.join(patients)} {whom} and {seeds} would show {' to '.join(limits)} at the least"
    unfinished = "" if utility["complete"] else "the experiment is not finished"
    hint = ""
    if hints:
        its = "gain leaves" if len(hints) == 1 else "gains leave"
        hint = f"a hint, no more: {len(hints)} {its} out 0 alone, but not among all comparisons"
    beside = ""
    if pasted:
        beside = f"compared with pixels copied by the same edits, which need no network, {', '.join(pasted)}"
    few = ""
    if utility["seeds"] < 2:
        grade = "not measured"
        few = "one seed cannot tell a gain from luck; the same command with --utility.seeds=4 adds seeds"
    return Answer(
        question, grade, _sentence(few, sentence, seen, beside, hint, power, unfinished), "utility.html"
    )


def _change(difference: Mapping[str, Any]) -> str:
    return f"{difference['value']:+.3f} ({difference['low']:+.3f} to {difference['high']:+.3f})"


def _learnt_nothing(found: Mapping[str, Any]) -> bool:
    """Whether no arm of a comparison is better than chance, or than a segmenter that is no judge."""
    best, least = found.get("best"), found.get("least")
    return best is not None and least is not None and best <= least


def _safe(evaluation: Mapping[str, Any]) -> Answer:
    """Never a plain yes: attacks that failed are no proof."""
    question, found = "Safe to share?", evaluation.get("memorisation", {})
    if found.get("copies") is None:
        return Answer(
            question, "not measured", _sentence(found.get("why") or "not measured; run --mode=audit"), ""
        )
    drawn = found.get("recognition") or {}
    new, who = _new(evaluation).answer, _who(found)
    trained = "slices" if _by_slice(found) else "patients"
    told = []
    if new == "no":
        told.append(f"training {trained} can be told from others")
    if drawn and drawn["held_out"]["recognised"] > RECOGNISED:
        told.append(
            f"images drawn from a {who}'s own map show that {who}, the nearest of all in "
            f"{drawn['held_out']['recognised']:.0%} of the slices (chance {drawn['chance']:.1%}), and "
            "edits hardly hide whose anatomy it is: share only what was drawn from sampled layouts"
        )
    if told:
        return Answer(question, "no", _sentence(*told), "audit.html")
    if new == "partly":
        why = f"training {trained} are nearer than chance explains"
        return Answer(question, "no", _sentence(why), "audit.html")
    if new == "not measured":
        why = _BY_SLICE if _by_slice(found) else "too few held-out patients to tell"
        return Answer(question, new, _sentence(why), "audit.html")
    sentence = "No sign of a leak by these attacks, which is no proof that there is none"
    return Answer(question, "partly", _sentence(sentence), "audit.html")


def _by_slice(found: Mapping[str, Any]) -> bool:
    return found.get("split_by") == "slice"


def _who(found: Mapping[str, Any]) -> str:
    """What a held-out slice is of: a patient, or itself where nobody knows the patients."""
    return "slice" if found["patients"]["held_out"] is None else "patient"


def _leaks(found: Mapping[str, Any]) -> bool:
    return _above(found) and found["auc"] >= LEAKS


def _above(found: Mapping[str, Any]) -> bool:
    return bool(found) and found["auc"] is not None and found["auc_interval"][0] > 0.5


def _told_of_auc(words: str, found: Mapping[str, Any]) -> str:
    low, high = found["auc_interval"]
    return f"{words} {found['auc']:.2f} ({low:.2f} to {high:.2f}; 0.5 is chance)"


def _joined(*parts: str) -> str:
    return "; ".join(part.rstrip(".") for part in parts if part)


def _sentence(*parts: str) -> str:
    text = _joined(*parts)
    return text[:1].upper() + text[1:] + "."
