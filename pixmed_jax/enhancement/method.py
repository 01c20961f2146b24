"""The contract between what changes a picture and the folder stage that feeds it pictures.

A `Method` knows arrays alone: pictures [H, W, C] float32 in [0, 1], C = 1 for grey. `folder.process` reads,
writes, measures and reports for all of them, whether they enhance or upscale.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np


class Output(NamedTuple):
    """What came of one picture.

    image:    [H', W', C] float32; what lies beyond [0, 1] is clipped when it is written.
    settings: what was chosen for this picture, by name.
    maps:     pictures [H', W'] in [0, 1] that explain it, such as {"illumination": ...}.
    """

    image: np.ndarray
    settings: Mapping[str, Any] = {}
    maps: Mapping[str, np.ndarray] = {}


class Method(NamedTuple):
    """`run` takes a picture; it may raise PixmedError, which is told with the name of the file.

    `name` is what the report calls it, `settings` what it was built with.
    """

    name: str
    run: Callable[[np.ndarray], Output]
    settings: Mapping[str, Any] = {}


# A picture and random numbers -> the picture made worse, with the maps that are then known of it. The
# picture itself is the reference.
Degrade = Callable[[np.ndarray, np.random.Generator], Output]
