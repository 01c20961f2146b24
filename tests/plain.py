"""Convolution and pooling in NumPy, as plainly as can be: what networks are compared with.

Images [H, W, C], kernels [O, I, k, l] as in PyTorch's files.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def convolved(x, kernel, *, stride=1, pad=(0, 0)):
    x = np.pad(x, ((pad[0],) * 2, (pad[1],) * 2, (0, 0)))
    windows = sliding_window_view(x, kernel.shape[2:], axis=(0, 1))[::stride, ::stride]  # [H, W, I, k, l]
    return np.tensordot(windows, kernel, ([2, 3, 4], [1, 2, 3]))


def pooled(x, reduction, size=3, *, stride=1, pad=0, outside=np.nan):
    """`reduction` over windows, NaN outside of the image."""
    x = np.pad(x, ((pad, pad), (pad, pad), (0, 0)), constant_values=outside)
    return reduction(sliding_window_view(x, (size, size), axis=(0, 1))[::stride, ::stride], axis=(3, 4))
