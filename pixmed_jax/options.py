"""What can be set: the options of every mode and the keys of a config, with their defaults and meanings.

Flags, `--help` and docs/options.md (`python -m pixmed_jax.options > docs/options.md`) are made of this.
"""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from pixmed_jax import config as configs
from pixmed_jax.defaults import ADVERSARIAL, COMMON, SUPERVISED


class Option(NamedTuple):
    default: Any
    meaning: str


_STEP = "checkpoint to use: newest, best (highest SSIM on held-out patients) or a number"
_INTENSITY = "how values of volumes become [0, 1]: auto, full, percentiles, window, or LOW,HIGH"
_BASELINES = "methods to compare with, separated by commas; auto takes all, empty none"
_REFERENCE = "folder with the pictures as they should be, under equal names; scores the result"
MODES: dict[str, dict[str, Option]] = {
    "sample": {
        "masks": Option("", "folder of masks to paint, pictures or volumes; empty paints the run's own"),
        "layout": Option("", "folder of a run of configs/layout.py, which draws the label maps"),
        "split": Option("test", "whose masks: train, val or test; training pairs need train"),
        "label": Option("", "only this class; for binary masks in sample.masks, the class they show"),
        "plane": Option("", "axial, coronal or sagittal, for a layout model trained with planes"),
        "number": Option(0, "how many slices; 0 is one per mask"),
        "seed": Option(0, "the same checkpoint, masks and seed give the same bytes"),
        "balance": Option(False, "draw all classes equally often"),
        "edit": Option(
            "none", "new masks from the split's: swap, move, scale, warp, deform, remove, or mixed (any of "
            "the first five)",
        ),
        "painter": Option(
            "network", "who makes edited maps slices: network, or copy_paste, which copies the pixels from "
            "where the map's were and needs no network; the baseline",
        ),
        "output": Option("", "folder to write to; empty is samples/ in the run's folder"),
        "step": Option("newest", _STEP),
        "batch_size": Option(8, "slices painted at a time; less needs less memory"),
        "format": Option("png", "png (8 bit), png16, or nifti in the units of the training data"),
        "upscale": Option(1, "sides of what is written, in multiples of the model's: 1, 2, 3 or 4"),
        "upscaler": Option(
            "bicubic", "nearest, bilinear, bicubic, lanczos, or the folder of a super-resolution run"
        ),
    },
    "evaluate": {
        "split": Option("test", "patients to score on: test, val, val+test, spare"),
        "seed": Option(0, "of the draws that are scored"),
        "step": Option("newest", _STEP),
        "features": Option("encoder", "network behind KID and recall: encoder (trained here) or inception"),
        "lpips": Option("none", "network of LPIPS: none, alexnet or vgg16"),
        "weights": Option("", "folder with the published weights that inception and LPIPS need"),
    },
    "audit": {
        "number": Option(500, "images to generate for each question"),
        "split": Option("test", "patients who were not trained on: test or val"),
        "samples": Option("", "a sampled folder to judge as well"),
        "seed": Option(0, "of the draws"),
        "step": Option("newest", _STEP),
    },
    "utility": {
        "segmenter": Option(
            "quick", "preset of configs/segmenter.py (a segmenter's run brings its own); empty leaves it out"
        ),
        "classifier": Option("quick", "preset of configs/classifier.py; empty leaves it out"),
        "shares": Option((10, 25, 50, 100), "shares of the training patients, per cent"),
        "seeds": Option(3, "repetitions; the same command with more goes on from those that are there"),
        "number": Option(600, "synthetic slices of each share and seed"),
        "edit": Option("auto", "as sample.edit; auto is mixed where the head is known or pixels are copied"),
        "split": Option("val+test+spare", "who is tested; val+test tests the same patients at every share"),
        "steps": Option(0, "of every network; 0 is the preset's"),
    },
    "reader": {
        "number": Option(60, "slices to show, half of them generated"),
        "split": Option("test", "whose slices: test, val or val+test"),
        "samples": Option("", "a sampled folder to show, instead of painting masks of the split"),
        "seed": Option(0, "of the draws and the order"),
        "step": Option("newest", _STEP),
        "answers": Option("", "the readers' files, or folders of them, separated by commas: scores them"),
    },
    "demo": {
        "port": Option(7860, "port of the page; 0 takes any that is free"),
        "browser": Option(False, "open the page in the browser"),
        "step": Option("newest", _STEP),
        "layout": Option("", "folder of a layout model's run or export, which draws the heads"),
    },
    "enhance": {
        "method": Option("lime", "lime, gamma, histogram, clahe or zero_dce"),
        "gamma": Option(0.0, "lime: share of the light divided out; gamma: the power; 0 lets it choose"),
        "strength": Option(1.0, "lime: 0 leaves the picture as it is, 1 is all of it"),
        "floor": Option(-1.0, "lime: weaker light is not divided out; below 0 it chooses, 0 is the paper's"),
        "alpha": Option(0.0, "lime: smoothness of the light; 0 is the solver's own"),
        "solver": Option("fast", "lime: fast or exact"),
        "strategy": Option(2, "lime: weights of the smoothing, 1, 2 or 3 as in its paper"),
        "denoise": Option(False, "lime: denoise where there was little light"),
        "workdir": Option("", "zero_dce: folder of a run of configs/zero_dce.py"),
        "step": Option("newest", _STEP),
        "clip_limit": Option(0.01, "clahe: limit of the contrast, 0 to 1"),
        "baselines": Option("auto", _BASELINES),
        "reference": Option("", _REFERENCE),
        "degrade": Option(False, "darken the pictures first, which are then their own references"),
        "darkest": Option(0.08, "degrade: light at the darkest place"),
        "brightest": Option(0.6, "degrade: light at the brightest place"),
        "noise": Option(0.01, "degrade: standard deviation of the noise, of the grey range"),
        "seed": Option(0, "degrade: of light and noise"),
        "intensity": Option("auto", f"{_INTENSITY}; auto clips nothing"),
    },
    "upscale": {
        "scale": Option(2, "2, 3 or 4"),
        "method": Option("lanczos", "nearest, bilinear, bicubic or lanczos, where no network is given"),
        "workdir": Option("", "folder of a run of configs/super_resolution.py or configs/srgan.py"),
        "step": Option("newest", _STEP),
        "baselines": Option("auto", _BASELINES),
        "reference": Option("", _REFERENCE),
        "degrade": Option(False, "make the pictures small first; they are then their own references"),
        "intensity": Option("auto", f"{_INTENSITY}; auto clips nothing"),
    },
    "export": {
        "step": Option("newest", _STEP),
        "dtype": Option("float32", "of the weights in the files: float32 or float16"),
        "onnx": Option(True, "write ONNX too"),
        "web": Option("", "the package onnxruntime-web; with it, a page that runs the network is written"),
    },
    "check_data": {
        "images": Option("images", "folder of images below --data"),
        "masks": Option("masks", "folder of masks below --data"),
        "meta": Option("meta.csv", "table with labels and patients"),
        "file_column": Option("file", "its column of file names"),
        "label_column": Option("label", "its column of classes"),
        "patient_column": Option("patient_group", "its column of patients"),
        "split_column": Option("", "its column of splits or folds, if it has one"),
        "axis": Option("stored", "how volumes are cut: stored, 0, 1, 2, axial, coronal or sagittal"),
        "class_name": Option("", "what binary masks show; empty is tumor"),
    },
}  # fmt: skip
_AUGMENT = "one entry for each operation: p, its probability, and range (data/augment_settings.py)"
# What experiments share: keys of every config, of adversarial and of supervised ones.
KEYS: dict[str, str] = {
    "seed": "of parameters, batches and draws",
    "about.data": "for model cards: where the data are from, and how to cite them",
    "about.licence": "for model cards: the licence of the data",
    "about.contact": "for model cards: whom to ask",
    "data.source": "phantom, folder, classes (a folder for each) or brain_tumor_mri (Cheng's, downloaded)",
    "data.patients": "phantom: how many patients to draw",
    "data.dir": "folder of the data; phantom: where they are kept",
    "data.images": "folder of images below data.dir",
    "data.masks": "folder of masks below data.dir",
    "data.meta": "table with labels and patients below data.dir",
    "data.file_column": "its column of file names",
    "data.label_column": "its column of classes",
    "data.patient_column": "its column of patients",
    "data.split_column": "its column of splits (train, val, test) or folds; empty draws splits",
    "data.class_name": "what binary masks show where the table has no classes",
    "data.allow_empty_masks": "keep slices without a tumour",
    "data.leave_out": "list of files not to use, such as check_data's duplicates.csv",
    "data.faulty": "error, or skip files that cannot be used",
    "data.faulty_most": "largest share of files to skip",
    "data.axis": "how volumes are cut: stored, 0, 1, 2, axial, coronal or sagittal",
    "data.intensity": "how values become [0, 1]: auto, full, percentiles, window, or LOW,HIGH",
    "data.enhance": "method that brightens every slice first: none, lime, gamma, histogram or clahe",
    "data.split.by": "patient, or slice, which lets a patient be trained on and tested",
    "data.split.fractions": "of patients: training, validation, test",
    "data.split.folds": "number of folds, in the place of fractions; 0 for none",
    "data.split.fold": "fold to test on",
    "data.split.seed": "of the draw; another seed is another split",
    "data.split.crossing": "patients in several given folds: error, or move (to the one with most of theirs)",
    "data.split.keep": "share of the training patients to use; the others are called spare",
    "data.split.keep_seed": "of the draw of these",
    "data.size": "side of the images, pixels",
    "data.load_scale": "images are resized to this multiple of size, then cropped at random",
    "data.channels": "of the images: 1 grey, 3 colours",
    "data.condition": "what a generator is given: tumor, tumor+head, anatomy or label",
    "data.class_channels": "a channel of the condition for each tumour class, or one for all",
    "data.tissues": "anatomy: number of tissue classes",
    "data.augment": _AUGMENT,
    "data.synthetic_dir": "supervised: a sampled folder to train with, or several with commas between",
    "data.synthetic": "supervised: add to the real training slices, replace them, or oversample",
    "data.synthetic_trust": "supervised: take a sampled folder that does not say whom its generator saw",
    "train.batch_size": "images a step, over all devices",
    "train.accumulate": "parts of a batch that are computed one after the other, to save memory",
    "train.steps": "steps to train; 0 takes epochs",
    "train.epochs": "passes over the training slices, where steps is 0",
    "train.ema_decay": "decay of the averaged weights that are sampled from",
    "train.dtype": "of activations: float32 or bfloat16",
    "train.max_skipped": "steps in a row whose numbers may be infinite before training stops",
    "train.resident_gb": "data up to this size stay on the device; more is read batch by batch",
    "train.augment_discriminator": f"adversarial: {_AUGMENT}; of what the discriminator sees",
    "log.every": "steps between records",
    "log.grid_every": "steps between pictures",
    "checkpoint.every": "steps between checkpoints",
    "checkpoint.keep": "newest checkpoints to keep; the best is kept too",
    "loss.gan": "adversarial: bce or least_squares",
    "loss.bce": "where binary cross-entropy acts: adversarial, pixel, both or none",
    "loss.ssim": "weight of 1 - SSIM",
    "loss.l1": "weight of the mean absolute difference, images in [0, 1]",
    "loss.mse": "weight of the mean squared difference",
    "loss.kl": "weight of the style's divergence from its prior",
    "loss.r1": "gamma of the R1 penalty; 0 for none",
    "loss.r1_every": "steps between R1 penalties",
    "loss.path_length": "weight of the path length penalty",
    "loss.path_every": "steps between path length penalties",
    "optimizer.learning_rate": "of Adam",
    "optimizer.b1": "of Adam",
    "optimizer.b2": "of Adam",
    "optimizer.weight_decay": "supervised: of AdamW",
    "optimizer.decay_steps": "supervised: steps until the rate is 0, by a cosine; 0 keeps it constant",
}
# Of some networks' configs alone.
OF_SOME = {
    "data.scale": "super-resolution: times as many pixels a side, 2, 3 or 4",
    "data.planes": "layouts: whether the model is told the plane",
    "loss.adversarial": "adversarial: weight of the discriminator's part",
    "loss.class_weights": "classifiers: one for each class; empty weighs all alike",
    "loss.label_smoothing": "classifiers: share of the label given to all classes alike",
    "loss.dice": "segmenters: weight of 1 - soft Dice beside cross-entropy",
    "loss.code": "layouts: weight of what the code costs, in nats",
    "loss.tumor": "layouts: what a pixel of a tumour counts, where others count 1",
    "loss.spatial": "Zero-DCE: weight of differences between neighbouring regions",
    "loss.exposure": "Zero-DCE: weight of the distance from loss.level",
    "loss.colour": "Zero-DCE: weight of a cast of colour",
    "loss.smoothness": "Zero-DCE: weight of how rough its curves are",
    "loss.level": "Zero-DCE: how bright a region should be, 0 to 1",
}
# Of `model.generator`, `model.discriminator` and `model.network`: what their networks are built of.
NETWORKS = {
    "name": "which network: a name in the tables of training/build.py",
    "weights": "what a training starts from: a run's folder; for a DenseNet Keras's file of ImageNet weights",
    "width": "features of the outermost level, of which deeper ones have multiples; StyleGAN2: of w",
    "widths": "SRCNN: features of its first two layers",
    "most": "GhostSPADE: features of a level at most",
    "levels": "times that the image is halved; of a segmenter the finest level counts too",
    "layers": "PatchGAN: convolutions that halve the image; more see larger patches",
    "blocks": "SRResNet: residual blocks; DenseNet: layers of each dense block",
    "norm": "batch, instance or none",
    "dropout": "share dropped; of the paper's U-Net the only noise, in the three innermost levels",
    "ghost_levels": "U-Net: encoder levels, counted from 1, that are ghost modules; empty for none",
    "ghost_ratio": "maps of a ghost module for each that a full convolution makes",
    "ghost_kernel": "U-Net: side of a ghost module's full convolution, 3 or 4",
    "cheap_kernel": "U-Net: side of its depthwise convolution",
    "style": "GhostSPADE: numbers of the style vector; 0 for none",
    "conditional": "PatchGAN: whether it sees the condition beside the image",
    "scales": "PatchGANs of which each looks at half the size of the one before",
    "spectral": "whether kernels have spectral norm 1",
    "latent": "numbers that an image or a layout is drawn from",
    "mapping_layers": "StyleGAN2: layers from the latent vector to w, or from the class to its embedding",
    "channel_base": "StyleGAN2: features times side of a level, up to channel_max",
    "channel_max": "StyleGAN2: features of a level at most",
    "style_mixing": "StyleGAN2: share of images in training that are drawn from two latent vectors",
    "truncation": "StyleGAN2: 1 draws freely, 0 the mean image of the class",
    "mean_decay": "StyleGAN2: decay of the running mean of w",
    "group": "StyleGAN2: images whose deviation its discriminator looks at together",
    "growth": "DenseNet: features that a layer adds",
    "stem": "DenseNet: features of the first convolution",
    "kernels": "SRCNN: sides of its three kernels",
    "iterations": "Zero-DCE: times that the curve is applied",
    "modes": "layouts: Gaussians that codes of a class are drawn from",
    "grain": "layouts: strength of the noise that roughens drawn maps; 0 draws smooth ones",
}
_AUGMENTED = ("data.augment", "train.augment_discriminator")
_MARGIN = 34  # columns before a meaning
_PAGE = """# Options and keys

What can be set on the command line. A mode's own: `python launch.py --mode=sample --help`.
"""


def defaults(mode: str) -> dict[str, Any]:
    return {name: option.default for name, option in MODES[mode].items()}


def of_config(config: Mapping[str, Any]) -> dict[str, Option]:
    """{"config.KEY": its value and meaning}; all settings of an augmentation are one entry."""
    found: dict[str, Option] = {}
    known = (
        KEYS
        | OF_SOME
        | {
            f"model.{role}.{name}": NETWORKS.get(name, "")  # those of one's own say themselves what they mean
            for role, settings in config.get("model", {}).items()
            for name in settings
        }
    )
    for key, value in configs.flatten(config).items():
        whole = next((name for name in _AUGMENTED if key.startswith(f"{name}.")), "")
        if key not in ("name", "preset"):
            option = Option("", KEYS[whole]) if whole else Option(value, known.get(key, ""))
            found[f"config.{whole or key}"] = option
    return found


def shared_keys() -> dict[str, Option]:
    """As `of_config`, of the keys that experiments share."""
    sections = (SUPERVISED, ADVERSARIAL, COMMON)  # the later one's defaults count
    return {key: option for section in sections for key, option in of_config(section).items()}


def told(rows: Mapping[str, Option]) -> str:
    """Flags with defaults and meanings, for a terminal of 100 columns."""
    lines: list[str] = []
    for name, (default, meaning) in rows.items():
        head = f"  --{name}={_shown(default)}"
        parts = textwrap.wrap(meaning, 100 - _MARGIN, break_long_words=False, break_on_hyphens=False)
        if len(head) < _MARGIN:
            head = f"{head:<{_MARGIN}}{parts.pop(0) if parts else ''}".rstrip()
        lines += [head, *(" " * _MARGIN + part for part in parts)]
    return "\n".join(lines)


def page() -> str:
    """docs/options.md."""
    lines = [_PAGE]
    for mode in MODES:
        lines += [f"## --mode={mode}", *_table(mode, MODES[mode].items()), ""]
    shared = shared_keys()
    lines += [
        "## Keys of a config",
        "Given as `--config.KEY=VALUE`. The defaults are those that experiments share; for those of a file "
        "in `configs/`, and those of its own, `python launch.py --config=configs/ghost.py --help`. "
        "A key that does not exist is answered with the nearest names; `--dry_run` checks the values.",
        "",
        *_table("config", ((key, shared[f"config.{key}"]) for key in KEYS)),
        "",
        "Of networks, behind `model.generator.`, `model.discriminator.` or `model.network.`:",
        "",
        "| key | meaning |",
        "|---|---|",
        *(f"| `{name}` | {meaning} |" for name, meaning in NETWORKS.items()),
        "",
    ]
    return "\n".join(lines)


def _table(prefix: str, options: Any) -> Iterator[str]:
    yield "| option | default | meaning |"
    yield "|---|---|---|"
    for name, (default, meaning) in options:
        shown = _shown(default)
        yield f"| `--{prefix}.{name}` | {f'`{shown}`' if shown else ''} | {meaning} |"


def _shown(default: Any) -> str:
    return f"{default:.4g}" if isinstance(default, float) else str(default)


if __name__ == "__main__":
    print(page(), end="")
