"""What the values in a folder's masks say: classes that no table names, and values that are no class."""

from pixmed_jax.data import masks as encodings
from pixmed_jax.data.faults import Fault
from pixmed_jax.data.survey_records import Survey
from pixmed_jax.errors import PixmedError, listing


def flag_values(found: Survey) -> None:
    """Masks that `masks` cannot decode, by the values of all."""
    names = sorted({record.label for record in found.records} - {""})
    held_by: dict[str, set[int]] = {}  # of all slices of a volume together
    for record in found.records:
        held_by.setdefault(record.mask, set()).update(record.mask_values)
    values = [held_by[record.mask] for record in found.records]
    if what := encodings.mostly_marked([of.mask_counts for of in found.records if of.mask_counts]):
        found.faults.append(Fault(what, [], "invert them if that is the background"))
    several = [v for record, v in zip(found.records, values, strict=True) if len(record.masks) > 1]
    try:
        coloured = bool(encodings.colours(values, names))
    except PixmedError as error:
        what, _, remedy = str(error).partition("; ")
        found.flag(
            what, remedy, {r: found.records[r].mask for r, v in enumerate(values) if max(v, default=0) > 255}
        )
        return
    if coloured:
        return
    classes = [f"class {v}" for v in range(1, max((max(v, default=0) for v in several), default=0) + 1)]
    encoding = encodings.recognise(values, names, classes)
    known = {0, *encoding.values}
    odd = {
        row: f"{found.records[row].mask}: values {listing([str(v) for v in sorted(held)], 8)}"
        for row, held in enumerate(values)
        if not (held <= {0, 1} or held <= {0, 255} or held <= known)
    }
    if odd and names and encodings.recognise(values, ()).own:  # without the labels each value is a class
        found.flag("masks hold values that no label names", encodings.MISREAD, odd)
        return
    remedy = f"save them without smoothing, as 0 and 255 or 0 to {max(1, len(names))}"
    found.flag("masks hold values that are no class (interpolated?)", remedy, odd)
    told = {
        row: (set(record.mask_values), names.index(record.label))
        for row, record in enumerate(found.records)
        if record.label and len(record.masks) == 1
    }
    held_here, labels = zip(*told.values(), strict=True) if told else ((), ())
    odd = {}
    for place in encodings.misread(held_here, labels, encoding):
        row = list(told)[place]
        odd[row] = f"{found.records[row].file}: {encodings.told_misread(*told[row], encoding)}"
    found.flag("masks do not hold the value of their label", encodings.MISREAD, odd)


def label_by_masks(found: Survey) -> str:
    """Label slices by the class that most of their mask is, as a training does that no table tells.

    Returns what the values mean; "" where a table labels the slices or masks have no classes of their own.
    """
    counts = [record.mask_counts for record in found.records]
    if any(record.label for record in found.records):
        return ""
    try:
        coloured = encodings.colours([set(of) for of in counts])
    except PixmedError:  # is among the defects
        return ""
    if coloured:
        counts = [encodings.numbers(of, coloured) for of in counts]
    values = [set(of) for of in counts]
    names = found.classes or (tuple(coloured.values()) if len(coloured) > 1 else ())
    encoding = encodings.recognise(values, (), names)
    if not encoding.own:
        return ""
    for record, of in zip(found.records, counts, strict=True):
        shown = [of.get(value, 0) for value in encoding.values]
        record.label = encoding.names[shown.index(max(shown))] if any(shown) else ""
    return encodings.describe(encoding, values)
