"""What a utility experiment is made of: its arms, which of them are compared, and what is measured."""

from pathlib import Path
from typing import Any, NamedTuple

from pixmed_jax.training.build import is_supervised


class Arm(NamedTuple):
    """What a network is trained on. synthetic: "" or how synthetic slices come in, as `data.synthetic`.

    folder: of the generator's, which holds the synthetic slices.
    """

    title: str
    short: str
    synthetic: str = ""
    augmented: bool = False
    folder: str = "samples"


# The edits of the generator's slices without a network, whose pixels are copied: what it has to be worth more
# than.
PASTED = "pasted"
ARMS = {
    "real": Arm("real", "real"),
    "oversampled": Arm(
        "real, oversampled to the size and balance of real + synthetic", "oversampled", "oversample"
    ),
    "augmented": Arm("real + classical augmentation", "+ augmentation", augmented=True),
    "synthetic": Arm("real + synthetic", "+ synthetic", "add"),
    "both": Arm("real + synthetic + classical augmentation", "+ both", "add", augmented=True),
    "only": Arm("synthetic only", "synthetic only", "replace"),
    "pasted": Arm(
        "real + copied pixels of edited masks (copy-paste) + classical augmentation",
        "+ copy-paste, augmentation",
        "add",
        augmented=True,
        folder=PASTED,
    ),
}
# Fixed beforehand: whoever has few slices augments them anyway, so the first question is what synthetic ones
# add to that. The verdict goes by it alone; the others say why.
PRIMARY = ("both", "augmented")
BESIDE_PASTED, OF_PASTED = ("both", PASTED), (PASTED, "augmented")
# Of an experiment without a generator, whose primary comparison is OF_PASTED.
_COPIED = ("real", "augmented", PASTED)
COMPARED = {
    PRIMARY: "synthetic slices beside classical augmentation",
    BESIDE_PASTED: "synthetic slices in the place of copied pixels, beside classical augmentation",
    OF_PASTED: "copied pixels beside classical augmentation, without a network",
    ("synthetic", "real"): "synthetic slices beside nothing",
    ("synthetic", "augmented"): "synthetic slices in the place of classical augmentation",
    ("synthetic", "oversampled"): "what is more than size and balance",
    ("augmented", "real"): "classical augmentation",
    ("only", "real"): "synthetic slices in the place of real ones",
}


class Measure(NamedTuple):
    title: str
    form: str
    sign: int  # 1 where more is better
    effects: tuple[float, ...]  # of what size the power note speaks


MEASURES = {
    "dice": Measure("Dice of the mask", "{:.3f}", 1, (0.01, 0.02, 0.04)),
    "accuracy": Measure("accuracy", "{:.3f}", 1, (0.01, 0.02, 0.04)),
    "log_loss": Measure("log loss", "{:.3f}", -1, (0.02, 0.05, 0.1)),
}
OF_NETWORK = {"masks": ("dice",), "labels": ("accuracy", "log_loss")}  # the first one is the verdict's


class Experiment(NamedTuple):
    """`config` of the generator, or of a segmenter where pixels are copied without one; networks
    {"segmenter": its config}; the rest as `utility` takes it.
    """

    config: dict[str, Any]
    networks: dict[str, Any]
    shares: tuple[int, ...]
    seeds: int
    number: int
    edit: str
    split: str

    def told(self) -> dict[str, Any]:
        return self._asdict()

    @property
    def paints(self) -> bool:
        """Whether there is a generator to train, or pixels are only copied."""
        return not is_supervised(self.config)

    @property
    def primary(self) -> tuple[str, str]:
        """The comparison that the verdict goes by."""
        return PRIMARY if self.paints else OF_PASTED

    def arms(self) -> dict[str, Arm]:
        """Without an edit, copied pixels would be the real slices."""
        if not self.paints:
            return {name: ARMS[name] for name in _COPIED}
        without = () if self.edit != "none" else (PASTED,)
        return {name: arm for name, arm in ARMS.items() if name not in without}

    def compared(self) -> dict[tuple[str, str], str]:
        """{arms: in words}, the primary comparison first."""
        arms = self.arms()
        return {pair: words for pair, words in COMPARED.items() if set(pair) <= set(arms)}

    def slices_of(self, workdir: Path, share: int, seed: int) -> Path:
        """The run's folder whose samples are the synthetic slices of a share and seed."""
        made_by = "generators" if self.paints else "copies"
        return workdir / "utility" / made_by / f"{share}-seed{seed}"
