"""Splits: patients stay whole, fractions and labels are met, nothing depends on the order of rows."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixmed_jax.data import folder, splits
from pixmed_jax.data.slices import Source
from pixmed_jax.errors import PixmedError

REAL = Path(__file__).parents[2] / "shared" / "data" / "brain-tumor-segmentation-256"


def source(groups, labels=None) -> Source:
    """A source that is an index only."""
    labels = np.zeros(len(groups), int) if labels is None else np.asarray(labels)
    files = tuple(f"{i:04}.png" for i in range(len(groups)))
    return Source(files, labels, ("x", "y", "z"), tuple(groups), ("",) * len(groups), lambda row: None)


def patients(sizes, n_labels: int = 1) -> Source:
    """Patient i has sizes[i] slices of label i modulo n_labels."""
    who = np.repeat(np.arange(len(sizes)), sizes)
    return source([f"p{i:03}" for i in who], who % n_labels)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30), min_size=3, max_size=40),
    n_labels=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_row_once_no_patient_twice_no_split_empty(sizes, n_labels, seed):
    data = patients([2, *sizes], n_labels)
    got = splits.split(data, seed=seed)
    assert list(got) == ["train", "val", "test"]
    assert sorted(np.concatenate(list(got.values())).tolist()) == list(range(len(data.files)))
    homes = [{data.groups[row] for row in rows} for rows in got.values()]
    assert sum(map(len, homes)) == len(set(data.groups))
    for rows in got.values():
        assert rows.size
        assert rows.tolist() == sorted(rows.tolist())


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(list(range(60))), seed=st.integers(0, 99))
def test_the_order_of_rows_does_not_matter(order, seed):
    data = patients([3] * 20, 3)
    shuffled = data._replace(
        files=tuple(data.files[i] for i in order),
        groups=tuple(data.groups[i] for i in order),
        labels=data.labels[list(order)],
    )
    first, second = splits.split(data, seed=seed), splits.split(shuffled, seed=seed)
    for name in splits.SPLITS:
        assert {data.files[i] for i in first[name]} == {shuffled.files[i] for i in second[name]}


def test_slices_meet_the_fractions_in_total_and_by_label():
    sizes = np.random.default_rng(0).integers(1, 40, 150)
    data = patients(sizes, 3)
    for seed in range(10):
        for rows, share in zip(splits.split(data, seed=seed).values(), (0.8, 0.1, 0.1), strict=True):
            assert len(rows) / len(data.files) == pytest.approx(share, abs=0.015)
            by_label = np.bincount(data.labels[rows], minlength=3) / np.bincount(data.labels)
            np.testing.assert_allclose(by_label, share, atol=0.04)


def test_patients_with_many_slices_are_found_in_every_split():
    """A rule that avoids overshooting a target would keep them all for training."""
    data = patients([2] * 100 + [20] * 100)
    large = [0, 0, 0]
    for seed in range(20):
        for i, rows in enumerate(splits.split(data, seed=seed).values()):
            large[i] += len({data.groups[row] for row in rows if int(data.groups[row][1:]) >= 100})
    np.testing.assert_allclose(np.array(large) / sum(large), (0.8, 0.1, 0.1), atol=0.015)


def test_of_more_orders_a_nearer_one_is_taken(monkeypatch):
    """By the chi-square distance: a slice too many weighs more in a small split than in a large one."""
    rng, shares = np.random.default_rng(0), np.array([0.8, 0.15, 0.05])
    for seed in range(10):
        units = rng.integers(1, 30, (25, 1)) * np.eye(2, dtype=int)[rng.integers(0, 2, 25)]
        counts = np.column_stack([units, units.sum(axis=1)])
        target = np.outer(shares, counts.sum(axis=0))
        distances = []
        for trials in (1, 2, 4, 8):
            monkeypatch.setattr(splits, "TRIALS", trials)
            part = splits._assign(units, shares, seed)
            held = np.stack([counts[part == i].sum(axis=0) for i in range(3)])
            distances.append(((held - target) ** 2 / target).sum())
        assert distances == sorted(distances, reverse=True)


def test_the_seed_decides():
    data = patients([4] * 40)
    first, again, other = (splits.split(data, seed=seed)["test"].tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_fraction_of_zero_leaves_its_split_empty():
    got = splits.split(patients([5] * 20), fractions=(0.75, 0, 0.25))
    assert [len(rows) for rows in got.values()] == [75, 0, 25]


def test_by_slice_warns_and_is_exact_by_label():
    data = patients([50, 50, 100], 3)
    with pytest.warns(UserWarning, match="several splits: scores will be too good"):
        got = splits.split(data, by="slice")
    assert [np.bincount(data.labels[rows]).tolist() for rows in got.values()] == [
        [40, 40, 80],
        [5, 5, 10],
        [5, 5, 10],
    ]


def test_by_patient_needs_patients():
    data = source([f"{i:04}.png" for i in range(30)])  # groups == files: none are known
    with pytest.raises(PixmedError, match=r"no patients.*data\.patient_column.*data\.split\.by=slice"):
        splits.split(data)
    with pytest.warns(UserWarning, match="leak|several splits"):
        assert len(splits.split(data, by="slice")["train"]) == 24


def test_fewer_patients_than_splits():
    with pytest.raises(PixmedError, match=r"2 patients cannot fill 3 splits; .*data\.split\.fractions to 0"):
        splits.split(patients([9, 9]))
    got = splits.split(patients([9, 9]), fractions=(0.5, 0.5, 0.0))
    assert [len(rows) for rows in got.values()] == [9, 9, 0]


@pytest.mark.parametrize(
    "fractions", [(0.5, 0.5), (0.8, 0.1, 0.2), (1.2, -0.1, -0.1), (float("nan"), 0.5, 0.5)]
)
def test_fractions_that_make_no_sense(fractions):
    with pytest.raises(PixmedError, match="three numbers >= 0 that sum to 1"):
        splits.split(patients([3] * 9), fractions=fractions)


def test_an_unknown_way_to_split():
    with pytest.raises(PixmedError, match=r"data\.split\.by='pid' is unknown; use patient or slice"):
        splits.split(patients([3] * 9), by="pid")


def test_a_given_split_is_followed_and_checked():
    data = source(["p", "p", "q", "r"])
    got = splits.split(data, given=["val", "val", "train", "test"])
    assert {name: rows.tolist() for name, rows in got.items()} == {"train": [2], "val": [0, 1], "test": [3]}
    leaking = ["val", "train", "train", "test"]
    with pytest.raises(PixmedError, match=r"1 patients are in several splits: p \(train \+ val\)"):
        splits.split(data, given=leaking)
    with pytest.warns(UserWarning, match="several splits"):
        assert splits.split(data, given=leaking, by="slice")["train"].tolist() == [1, 2]
    with pytest.raises(PixmedError, match="4 values for 4 slices, among them 'dev', 'holdout'; give train"):
        splits.split(data, given=["dev", "val", "holdout", "test"])
    with pytest.raises(PixmedError, match="1 values for 4 slices; give"):
        splits.split(data, given=["train"])


def test_all_shared_patients_are_listed():
    splits.check_disjoint({"train": ["a", "b", "b"], "val": ["c"], "test": []})
    with pytest.raises(PixmedError) as caught:
        splits.check_disjoint({"train": ["a", "b"], "val": ["b", "c"], "test": ["c", "b", "d"]})
    assert "2 patients are in several splits: b (train + val + test), c (val + test);" in str(caught.value)


@pytest.mark.skipif(not REAL.is_dir(), reason="real data are not here")
def test_real_patients():
    data = folder.source(REAL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = splits.split(data)
    shares = [len(rows) / 2578 for rows in got.values()]
    np.testing.assert_allclose(shares, (0.8, 0.1, 0.1), atol=0.015)


def test_over_all_folds_each_slice_is_tested_once_and_validated_once():
    sizes = np.random.default_rng(0).integers(1, 40, 150)
    data = patients(sizes, 3)
    for folds in (3, 5):
        got = [splits.split(data, folds=folds, fold=fold, seed=7) for fold in range(folds)]
        everything = list(range(len(data.files)))
        for name in ("val", "test"):
            assert sorted(np.concatenate([rows[name] for rows in got]).tolist()) == everything
        for fold, rows in enumerate(got):
            assert sorted(np.concatenate(list(rows.values())).tolist()) == everything
            assert rows["val"].tolist() == got[(fold + 1) % folds]["test"].tolist()
            homes = [{data.groups[row] for row in r} for r in rows.values()]
            assert sum(map(len, homes)) == len(set(data.groups))
            by_label = np.bincount(data.labels[rows["test"]], minlength=3) / np.bincount(data.labels)
            np.testing.assert_allclose(by_label, 1 / folds, atol=0.06)


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(list(range(60))), seed=st.integers(0, 99), fold=st.integers(0, 4))
def test_folds_do_not_depend_on_the_order_of_rows(order, seed, fold):
    data = patients([3] * 20, 3)
    shuffled = data._replace(
        files=tuple(data.files[i] for i in order),
        groups=tuple(data.groups[i] for i in order),
        labels=data.labels[list(order)],
    )
    first = splits.split(data, folds=5, fold=fold, seed=seed)
    second = splits.split(shuffled, folds=5, fold=fold, seed=seed)
    for name in splits.SPLITS:
        assert first[name].size
        assert {data.files[i] for i in first[name]} == {shuffled.files[i] for i in second[name]}


def test_as_many_patients_as_folds_and_folds_by_slice():
    got = [splits.split(patients([9, 1, 2, 3]), folds=4, fold=fold)["test"].size for fold in range(4)]
    assert sorted(got) == [1, 2, 3, 9]
    with pytest.warns(UserWarning, match="several splits"):
        rows = splits.split(patients([50, 50, 100], 3), by="slice", folds=5, fold=4)
    assert [len(r) for r in rows.values()] == [120, 40, 40]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"folds": 2}, r"data\.split\.folds=2: give 3 or more"),
        ({"folds": -5}, r"data\.split\.folds=-5: give 3 or more"),
        ({"fold": 2}, r"data\.split\.folds=0: give 3 or more"),
        ({"folds": 5, "fold": 5}, r"data\.split\.fold=5: give 0 to 4"),
        ({"folds": 5, "fold": -1}, r"data\.split\.fold=-1: give 0 to 4"),
        ({"folds": 10}, r"9 patients cannot fill 10 splits; add patients or take fewer data\.split\.folds"),
        ({"folds": 5, "given": ["train"] * 27}, r"own split, so there is nothing for data\.split\.folds"),
    ],
)
def test_folds_that_make_no_sense(options, told):
    with pytest.raises(PixmedError, match=told):
        splits.split(patients([3] * 9), **options)


@pytest.mark.skipif(not REAL.is_dir(), reason="real data are not here")
def test_five_folds_of_real_patients():
    data = folder.source(REAL)
    tested = [splits.split(data, folds=5, fold=fold)["test"] for fold in range(5)]
    np.testing.assert_allclose([len(rows) / 2578 for rows in tested], 0.2, atol=0.02)
    for rows in tested:
        shares = np.bincount(data.labels[rows]) / np.bincount(data.labels)
        np.testing.assert_allclose(shares, 0.2, atol=0.04)


def test_given_folds_are_the_parts():
    """Names are ordered as numbers: 10 follows 2. Fold i is tested, the next one validates."""
    data = patients([2] * 8)
    column = [("1", "2", "10", "9")[i // 2 % 4] for i in range(16)]  # patient k is in fold k mod 4
    order = ["1", "2", "9", "10"]
    for fold in range(4):
        got = splits.split(data, given=column, folds=4, fold=fold)
        held = {name: {column[row] for row in rows} for name, rows in got.items()}
        assert held["test"] == {order[fold]} and held["val"] == {order[(fold + 1) % 4]}
        assert held["train"] == set(order) - held["test"] - held["val"]
        assert sorted(np.concatenate(list(got.values())).tolist()) == list(range(16))
    names = ["b", "a", "c"]
    assert splits.split(source(["p", "q", "r"]), given=names, folds=3, fold=0)["test"].tolist() == [1]


def test_patients_that_cross_given_folds_are_told_and_never_leak():
    data = source(["p", "p", "p", "q", "r", "r", "s"])
    column = ["2", "1", "2", "1", "3", "1", "2"]
    with pytest.raises(
        PixmedError,
        match=r"2 patients are in several of the given folds: p \(1 \+ 2\), "
        r"r \(1 \+ 3\); .* data\.split\.crossing=move",
    ):
        splits.split(data, given=column, folds=3)
    for fold, tested in enumerate(([3, 4, 5], [0, 1, 2, 6])):  # r has one slice in each: the first
        with pytest.warns(UserWarning, match=r"2 patients .* are moved, 2 slices in all: p \(1 \+ 2\)"):
            got = splits.split(
                data._replace(groups=(*data.groups, "t"), files=(*data.files, "t.png"),
                              labels=np.zeros(8, int)),
                given=[*column, "3"], folds=3, fold=fold, crossing="move",
            )  # fmt: skip
        assert got["test"].tolist() == tested
        homes = [{"pppqrrst"[row] for row in rows} for rows in got.values()]
        assert sum(map(len, homes)) == 5
    for fold in (1, 2):  # "3" held half of r only, and validates or is tested
        with pytest.raises(PixmedError, match="given fold '3' is empty"), pytest.warns(UserWarning):
            splits.split(data, given=column, folds=3, fold=fold, crossing="move")
    with pytest.warns(UserWarning, match="several splits"):
        assert splits.split(data, given=column, folds=3, by="slice")["test"].tolist() == [1, 3, 5]


@pytest.mark.parametrize(
    ("column", "options", "told"),
    [
        ("1234", {"folds": 5}, r"bring 4 folds \('1', '2', '3', '4'\); set data\.split\.folds=4"),
        ("123", {"folds": 3}, "given folds have 3 values for 4 slices"),
        (
            "1123",
            {},
            r"among them '1', '2', '3'; give train.* or set data\.split\.folds=3 if these are folds",
        ),
        ("1123", {"folds": 3, "crossing": "drop"}, r"data\.split\.crossing='drop' is unknown; use error or"),
    ],
)
def test_given_folds_that_make_no_sense(column, options, told):
    with pytest.raises(PixmedError, match=told):
        splits.split(source(["p", "q", "r", "s"]), given=list(column), **options)


@pytest.mark.skipif(not REAL.is_dir(), reason="real data are not here")
def test_the_folds_of_the_brain_tumor_dataset():
    """The authors' folds tear patients with two ids; grouped folds, made by hand, do not."""
    data = folder.source(REAL, split_column="grouped_fold")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tested = [splits.split(data, given=data.given, folds=4, fold=i)["test"] for i in range(4)]
    for name, rows in zip("1245", tested, strict=True):  # the patients of fold 3 are held out elsewhere
        assert {data.given[row] for row in rows} == {name}
    data = folder.source(REAL, split_column="official_fold")
    with pytest.raises(PixmedError, match=r"\d+ patients are in several of the given folds: MR"):
        splits.split(data, given=data.given, folds=5)
    with pytest.warns(UserWarning, match="are moved"):
        got = splits.split(data, given=data.given, folds=5, crossing="move")
    homes = [{data.groups[row] for row in rows} for rows in got.values()]
    assert sum(map(len, homes)) == 169


@settings(max_examples=30, deadline=None)
@given(keep=st.floats(0.05, 0.95), seed=st.integers(0, 99), keep_seed=st.integers(0, 99))
def test_a_share_of_the_training_patients_stays_and_the_others_are_spare(keep, seed, keep_seed):
    """Patients stay whole, and who validates and tests does not depend on it."""
    data = patients([3] * 60, 3)
    whole = splits.split(data, seed=seed)
    some = splits.split(data, seed=seed, keep=keep, keep_seed=keep_seed)
    assert some["val"].tolist() == whole["val"].tolist()
    assert some["test"].tolist() == whole["test"].tolist()
    assert set(some["train"]) < set(whole["train"])
    kept = {data.groups[row] for row in some["train"]}
    assert some["train"].tolist() == [row for row in whole["train"] if data.groups[row] in kept]
    assert some["spare"].tolist() == [row for row in whole["train"] if data.groups[row] not in kept]
    assert "spare" not in whole
    again = splits.split(data, seed=seed, keep=keep, keep_seed=keep_seed)
    assert again["train"].tolist() == some["train"].tolist()


def test_a_share_has_its_size_and_its_labels_and_another_seed_draws_others():
    data = patients(np.random.default_rng(0).integers(1, 40, 150), 3)
    whole = splits.split(data)["train"]
    drawn = [splits.split(data, keep=0.25, keep_seed=seed)["train"] for seed in range(5)]
    for rows in drawn:
        assert len(rows) / len(whole) == pytest.approx(0.25, abs=0.03)
        share = np.bincount(data.labels[rows], minlength=3) / np.bincount(data.labels[whole])
        np.testing.assert_allclose(share, 0.25, atol=0.06)
    assert len({tuple(rows) for rows in drawn}) == 5
    assert splits.split(data, keep=1.0, keep_seed=3)["train"].tolist() == whole.tolist()


@pytest.mark.parametrize("keep", [0.0, -0.1, 1.1])
def test_a_share_that_is_none(keep):
    with pytest.raises(PixmedError, match=r"data\.split\.keep=.*above 0 and up to 1"):
        splits.split(patients([3] * 20), keep=keep)


def test_a_few_slices_of_unknown_patients_are_not_split_by_patient():
    """Each would pass for a patient of its own, and neighbours could lie on both sides."""
    data = patients([5] * 20)
    data = data._replace(groups=(*data.groups[:-2], *data.files[-2:]))
    with pytest.raises(PixmedError, match=r"name no patients of 2 of 100 slices.*data\.split\.by=slice"):
        splits.split(data)
