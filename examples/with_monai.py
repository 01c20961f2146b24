"""A sampled folder in MONAI: python examples/with_monai.py FOLDER

`pixmed_jax.Samples` is a sequence of dictionaries with channels first, which MONAI's datasets take as it is,
and its dictionary transforms after it. It needs monai and torch.
"""

import sys

import torch
from monai.data import DataLoader, Dataset
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from monai.transforms import Compose, EnsureChannelFirstd, RandFlipd, RandGaussianNoised

import pixmed_jax

if len(sys.argv) != 2:
    sys.exit(__doc__.splitlines()[0])

samples = pixmed_jax.Samples(sys.argv[1], channels_first=True)
transform = Compose([
    EnsureChannelFirstd("mask", channel_dim="no_channel"),  # [1, S, S]; images are [C, S, S]
    RandFlipd(["image", "mask"], prob=0.5, spatial_axis=1),
    RandGaussianNoised("image", prob=0.2, std=0.02),
])  # fmt: skip
loader = DataLoader(Dataset(samples, transform), batch_size=4, shuffle=True)

network = UNet(2, in_channels=samples[0]["image"].shape[0], out_channels=2, channels=(8, 16), strides=(2,))
loss_of = DiceCELoss(to_onehot_y=True, softmax=True)
optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
for epoch in range(5):
    for batch in loader:
        loss = loss_of(network(batch["image"]), batch["mask"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
