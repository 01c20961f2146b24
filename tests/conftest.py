"""Settings to be made before JAX starts: the tests run on the CPU unless told otherwise, on one device.

Rank promotion stays allowed: a bias over the channels of an NHWC image is one, in this code and in Flax.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
