"""A sampled folder in TensorFlow Datasets, without TensorFlow: python examples/with_tfds.py FOLDER [DATA_DIR]

One line, `tfds.data_source`, behind the import that tells TFDS of the builder. DATA_DIR is where TFDS keeps
its copy, `~/tensorflow_datasets` by default.
"""

import sys

import tensorflow_datasets as tfds

import pixmed_jax.data.samples_builder  # noqa: F401

if len(sys.argv) not in (2, 3):
    sys.exit(__doc__.splitlines()[0])

folder, data_dir = [*sys.argv[1:], None][:2]
source = tfds.data_source(
    "pixmed_samples", split="train", builder_kwargs={"directory": folder}, data_dir=data_dir
)

for record in source:
    print(record["file"].decode(), record["label"], record["image"].shape, record["mask"].sum())
