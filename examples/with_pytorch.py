"""A sampled folder in PyTorch: python examples/with_pytorch.py FOLDER

One line, the DataLoader; the rest shows that a segmentation network learns from it. It needs torch.
"""

import sys

import torch
from torch.utils.data import DataLoader

import pixmed_jax

if len(sys.argv) != 2:
    sys.exit(__doc__.splitlines()[0])

loader = DataLoader(pixmed_jax.Samples(sys.argv[1], channels_first=True), batch_size=4, shuffle=True)

network = torch.nn.Sequential(torch.nn.LazyConv2d(8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 1, 1))
network(next(iter(loader))["image"])  # tells the first layer its channels
optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
for epoch in range(5):
    for batch in loader:  # image [4, C, S, S] float32 in [0, 1], mask [4, S, S] uint8, label [4] int64
        found = network(batch["image"])[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(found, batch["mask"].float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
