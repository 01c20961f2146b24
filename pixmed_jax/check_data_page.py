"""What --mode=check_data shows: classes, sizes, defects and copies of a folder as one page with pictures."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage, sparse

from pixmed_jax import charts, pages, pictures
from pixmed_jax.data import duplicates
from pixmed_jax.data.duplicates import Copy
from pixmed_jax.data.survey_records import Record, Survey

_PER_CLASS, _PAIRS = 8, 8  # pictures of each class, pairs shown of each sort
_SIDE = 144  # pixels of a picture
_LISTED = 200  # names of one defect on the page
_OUTLINE = (255, 90, 60)


def page(
    found: Survey,
    second: Survey | None,
    within: Sequence[Copy],
    between: Sequence[Copy],
    target: Path,
    class_name: str,
    meaning: str,
) -> str:
    records = found.records
    readable = [record for record in records if record.height]
    return pages.render(
        "pixmed_jax",
        "check_data.html.j2",
        name=found.root.name,
        other=second.root.name if second else "",
        n=len(records),
        thing=class_name or "tumour",
        meaning=meaning,
        unreadable=len(records) - len(readable),
        bytes=found.bytes,
        volumes=len({r.item for r in records if r.is_slice}),
        left_out=sum(1 for r in records if r.left_out),
        sizes=Counter(f"{r.width} × {r.height}" for r in readable).most_common(),
        kinds=Counter(record.kind_as_stored for record in readable).most_common(),
        patients=len({r.patient for r in records} - {""}),
        masks=sum(1 for r in records if r.mask),
        faults=[
            (fault.what, len(fault.names) or 1, fault.names[:_LISTED], len(fault.names), fault.remedy)
            for fault in sorted(found.faults, key=lambda fault: -(len(fault.names) or 1))
        ],
        n_defects=sum(len(fault.names) or 1 for fault in found.faults),
        classes=_classes(found, class_name or "no label"),
        balance=_balance([r for r in records if not r.left_out], class_name or "no label"),
        charts=_charts(readable, class_name or "tumour"),
        within=_section(found, found, within),
        across=_across(records, within),
        groups=_groups(within, len(records)),
        between=_section(found, second, between) if second else None,
        n_second=len(second.records) if second else 0,
        unreadable_second=sum(1 for r in second.records if not r.height) if second else 0,
        threshold=duplicates.COPY,
        duplicates=target / "duplicates.csv",
    )


def _classes(found: Survey, unlabelled: str) -> list[tuple[str, int, list[str]]]:
    """(label, images, pictures) by label; the pictures are spread over patients and files."""
    rows = defaultdict(list)
    for record in found.records:
        if record.height and not record.left_out:
            rows[record.label].append(record)
    return [
        (label or unlabelled, len(some), [_picture(found, r) for r in _spread(some, _PER_CLASS)])
        for label, some in sorted(rows.items())
    ]


def _spread(items: Sequence[Any], number: int) -> list[Any]:
    """Up to `number` of the items, evenly spaced."""
    if len(items) <= number:
        return list(items)
    return [items[round(i * (len(items) - 1) / max(1, number - 1))] for i in range(number)]


def _balance(
    records: Sequence[Record], unlabelled: str
) -> tuple[list[str], list[tuple[str, list[tuple[int, int]]]]]:
    """(splits, [(label, [(images, patients) per split, then in all])]), last the sum of all labels."""
    splits = sorted(
        {r.split for r in records}, key=lambda s: ({"train": 0, "val": 1, "test": 2}.get(s, 3), s)
    )
    labels = sorted({r.label for r in records})

    def cell(label: str | None, split: str | None) -> tuple[int, int]:
        some = [r for r in records if label in (None, r.label) and split in (None, r.split)]
        return len(some), len({r.patient for r in some} - {""})

    columns = [*splits, None] if len(splits) > 1 else [None]
    rows = [(label or unlabelled, [cell(label, s) for s in columns]) for label in labels]
    if len(labels) > 1:
        rows.append(("all", [cell(None, s) for s in columns]))
    return [s or "no split" for s in columns[:-1]] + ["all"], rows


def _section(first: Survey, second: Survey, copies: Sequence[Copy]) -> dict[str, Any]:
    """Numbers and pictures of pairs: examples of each transform, and the pairs that are least alike."""
    by_transform = defaultdict(list)
    for copy in sorted(copies, key=lambda c: -c.similarity):
        by_transform[copy.transform].append(copy)
    shares = -(-_PAIRS // max(1, len(by_transform)))
    doubtful = _distinct(sorted(copies, key=lambda c: c.similarity), first is second)
    unlike = [
        c for c in copies if len({first.records[c.file].label, second.records[c.other].label} - {""}) > 1
    ]
    shown = {
        "Examples of each transform": [c for some in by_transform.values() for c in _spread(some, shares)],
        "Labelled differently": _distinct(unlike, first is second),
        f"The least alike ({duplicates.COPY} and more count as copies)": doubtful,
    }
    return {
        "pairs": len(copies),
        "files": len({c.file for c in copies}),
        "others": len({c.other for c in copies}),
        "transforms": [
            (name.replace("_", " "), len(by_transform[name]))
            for name in duplicates.TRANSFORMS
            if name in by_transform
        ],
        "shown": [
            (title, [_pair(first, second, copy) for copy in some]) for title, some in shown.items() if some
        ],
    }


def _distinct(copies: Sequence[Copy], one_set: bool) -> list[Copy]:
    """The first few that have no image in common."""
    chosen: list[Copy] = []
    seen: set[tuple[bool, int]] = set()
    for copy in copies:
        images = {(True, copy.file), (one_set, copy.other)}
        if not images & seen and len(chosen) < _PAIRS:
            chosen.append(copy)
            seen |= images
    return chosen


def _pair(first: Survey, second: Survey, copy: Copy) -> dict[str, str]:
    file, other = first.records[copy.file], second.records[copy.other]
    return {
        "file": file.file,
        "other": other.file,
        "transform": copy.transform.replace("_", " "),
        "similarity": f"{copy.similarity:.3f}",
        "picture": _picture(first, file, outline=False),
        "other_picture": _picture(second, other, outline=False),
    }


def _across(records: Sequence[Record], within: Sequence[Copy]) -> list[tuple[str, int]]:
    """[(split or two splits, pairs)] of the copies within one folder."""
    pairs = Counter(" and ".join(sorted({records[c.file].split, records[c.other].split})) for c in within)
    return [(name, count) for name, count in sorted(pairs.items()) if name]


def _groups(within: Sequence[Copy], n: int) -> list[int]:
    """Sizes of the groups of images that are each other's copies, largest first."""
    files, others = np.array([(c.file, c.other) for c in within], int).reshape(-1, 2).T
    graph = sparse.coo_array((np.ones(len(files), bool), (files, others)), shape=(n, n))
    _, group = sparse.csgraph.connected_components(graph, directed=False)
    sizes = np.bincount(group)
    return sorted(sizes[sizes > 1].tolist(), reverse=True)


def _picture(found: Survey, record: Record, *, outline: bool = True) -> str:
    """A small picture of an image, its tumour outlined, as a data URI; as wide as it is in the patient."""
    image = found.reader.image(record.item, record.index)
    # Often 12 of 16 bits are used, and fluorescence is dim in 8.
    image = (image / max(1, np.percentile(image, 99.8)) * 255).clip(0, 255).astype(np.uint8)
    shown = Image.fromarray(image).convert("RGB")
    tall, wide = found.reader.pixel_sides(record.item)
    sides = shown.width * wide, shown.height * tall
    size = (max(1, round(_SIDE * sides[0] / max(sides))), max(1, round(_SIDE * sides[1] / max(sides))))
    pixels = np.array(shown.resize(size, Image.Resampling.BICUBIC))
    if outline and record.tumour_pixels > 0:
        mask = Image.fromarray((found.reader.raw_mask(record.item, record.index) > 0).astype(np.uint8) * 255)
        inside = np.asarray(mask.resize(size, Image.Resampling.BILINEAR)) > 127
        pixels[ndimage.binary_dilation(inside) & ~inside] = _OUTLINE
    return pictures.data_uri(Image.fromarray(pixels), "JPEG")


def _charts(readable: Sequence[Record], thing: str) -> list[str]:
    """Histograms as data URIs: intensities, and sizes of the masks by label."""
    charts = []
    names = ("minimum", "mean", "maximum")
    if files := [r for r in readable if not r.stored]:
        ranges = {name: [100 * getattr(r, name) / (2**r.bits - 1) for r in files] for name in names}
        charts.append(_chart("intensities of each image", "% of the type's range", ranges))
    if slices := [r for r in readable if r.stored]:
        ranges = {name: [getattr(r, name) for r in slices] for name in names}
        charts.append(_chart("intensities of each slice", "in the files' own units", ranges))
    tumours: Mapping[str, list[float]] = defaultdict(list)
    for record in readable:
        if record.tumour_share:
            tumours[record.label or "all"].append(100 * record.tumour_share)
    if tumours:
        charts.append(_chart(f"{thing} size", "% of the image's pixels", dict(sorted(tumours.items()))))
    return charts


def _chart(title: str, axis: str, values: Mapping[str, Sequence[float]]) -> str:
    figure = Figure(figsize=(4.6, 2.8), layout="constrained")
    axes = figure.subplots()
    top = max(1e-6, *(max(some) for some in values.values()))
    bins = np.linspace(min(0.0, *(min(some) for some in values.values())), top, 41).tolist()
    for name, some in values.items():
        told = name.replace("$", r"\$")  # no formula, whatever a table calls its classes
        axes.hist(some, bins=bins, histtype="stepfilled", alpha=0.5, label=told)
    corner: charts.Corner | None = "upper right" if len(values) > 1 else None
    charts.styled(axes, title, x=axis, y="images", grid=True, legend=corner)
    return charts.chart_uri(figure)
