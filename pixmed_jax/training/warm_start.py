"""Whom the weights have seen that a training starts from, where these are another run's.

Nobody of them may validate or test the new run. They go into its record as patients behind it, for whoever
evaluates it, samples with it, or starts from it in turn.
"""

import warnings
from collections.abc import Mapping
from typing import Any

from pixmed_jax import workdir as run_folder
from pixmed_jax.data import leaks
from pixmed_jax.data.sources import Dataset
from pixmed_jax.errors import PixmedError
from pixmed_jax.training import build


def with_behind(config: Mapping[str, Any], dataset: Dataset, record: Mapping[str, Any] | None) -> Dataset:
    """The dataset with those behind the weights that `model.generator.weights` names, if it names any.

    record: of a run that is gone on with, which no longer needs the other. PixmedError for weights that have
    seen validation or test patients; a warning where nobody knows whom they have seen.
    """
    run = build.warm_start(config)
    if run is None:
        return dataset
    if record is not None:
        return dataset._replace(behind=record.get("behind", {}))
    build.newest_of(run)  # refused where there is nothing to start from
    seen = run_folder.trained_on(run)
    if seen is None or dataset.behind is None:
        warnings.warn(
            f"{run / run_folder.SPLIT}: does not say whom these weights have seen; with patients of this "
            "run's val and test among them, its scores are too good",
            stacklevel=2,
        )
        return dataset._replace(behind=None)
    by = config["data"]["split"]["by"]
    leaks.warn_of_unknown(run, "it", seen, dataset.source, by)
    if told := leaks.told(seen, dataset.source, {name: dataset.rows[name] for name in ("test", "val")}, by):
        raise PixmedError(
            f"{run}: was trained on {told}; train it with this run's data.split, or set "
            "model.generator.weights to another run"
        )
    return dataset._replace(behind={**dataset.behind, **seen})
