"""A sampled folder for nnU-Net: python examples/with_nnunet.py FOLDER nnUNet_raw/Dataset501_Synthetic

It becomes a raw dataset of nnU-Net 2 (2D): imagesTr/CASE_0000.png, labelsTr/CASE.png with 0 and 1, and
dataset.json. For a mixed dataset add your real training slices under the same scheme, and keep the synthetic
ones out of the folds that nnU-Net validates on (splits_final.json).
"""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

import pixmed_jax

if len(sys.argv) != 3:
    sys.exit(__doc__.splitlines()[0])

samples, target = pixmed_jax.Samples(sys.argv[1]), Path(sys.argv[2])
for name in ("imagesTr", "labelsTr"):
    (target / name).mkdir(parents=True)
for file, sample in zip(samples.files, samples, strict=True):
    case = f"synthetic_{Path(file).stem}"
    grey = np.rint(255 * sample["image"][..., 0]).astype(np.uint8)
    Image.fromarray(grey).save(target / "imagesTr" / f"{case}_0000.png")
    Image.fromarray(sample["mask"]).save(target / "labelsTr" / f"{case}.png")
about = {
    "channel_names": {"0": "MRI"},  # normalised by each image's own mean and deviation
    "labels": {"background": 0, "tumor": 1},
    "numTraining": len(samples),
    "file_ending": ".png",
}
(target / "dataset.json").write_text(json.dumps(about, indent=2))
print(f"{len(samples)} cases in {target}")
print("next: nnUNetv2_plan_and_preprocess -d 501 --verify_dataset_integrity")
