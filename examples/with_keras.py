"""A sampled folder in Keras: KERAS_BACKEND=jax python examples/with_keras.py FOLDER

One line, `stacked`; the rest shows that a segmentation network learns from it. It needs keras.
"""

import sys

import keras

import pixmed_jax

if len(sys.argv) != 2:
    sys.exit(__doc__.splitlines()[0])

data = pixmed_jax.Samples(sys.argv[1]).stacked()  # image [N, S, S, C], mask [N, S, S], label [N]

network = keras.Sequential(
    [
        keras.layers.Conv2D(8, 3, padding="same", activation="relu"),
        keras.layers.Conv2D(1, 1, activation="sigmoid"),
    ]
)
network.compile(optimizer=keras.optimizers.Adam(1e-2), loss="binary_crossentropy")
network.fit(data["image"], data["mask"][..., None], batch_size=4, epochs=5, verbose=2)
