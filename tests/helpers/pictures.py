"""Pictures that tests make for themselves."""

import torch


def picture(height: int, width: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A picture `[1, 3, height, width]` in [0, 1] like a photograph: smooth, with edges."""
    y, x = torch.meshgrid(torch.linspace(0, 3, height), torch.linspace(0, 3, width), indexing="ij")
    plane = 0.5 + 0.3 * torch.sin(5 * x + y**2) * torch.cos(3 * y) + 0.15 * (x + y > 3)
    return torch.stack((plane, plane.flip(0), 1 - plane))[None].to(dtype)


def generator(seed: int = 0) -> torch.Generator:
    """A source of randomness with a known seed."""
    return torch.Generator().manual_seed(seed)


def small(height: int, width: int) -> torch.Tensor:
    """A `picture` of four times the size, downsampled to `height`×`width`."""
    from def_hub.observation.downsample import Downsample

    return Downsample().forward(picture(4 * height, 4 * width))
