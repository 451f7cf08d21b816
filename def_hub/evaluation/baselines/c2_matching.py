"""C2-Matching: Jiang et al., "Robust Reference-based Super-Resolution via C2-Matching", CVPR 2021.

Two descriptors, trained by contrast and distillation, match the enlarged image with the sharp reference. Deformable
convolutions start from the matches to read VGG19 features of the reference. 8.87 million parameters in the restoration.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from def_hub.evaluation.baselines.patches import match
from def_hub.evaluation.baselines.srresnet import ResidualBlock
from def_hub.observation.downsample import Downsample
from def_hub.reference.features import VGG19Features

SLOPE = 0.1
"""Of the leaky ReLU."""
GROUPS = 8
"""Groups of channels that a deformable convolution reads at places of their own."""
TAPS = 9
GATHERED = 2**24
"""Numbers that a deformable convolution gathers at a time."""
MEAN, SPREAD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's colours: the descriptors are VGG16's first layers."""


class C2Matching(nn.Module):
    """Descriptors, VGG19 and restoration. The first and the last are named as in the authors' release, which keeps the
    three in a file each: see `baselines.BASELINES`.

    Args:
        features: channels of the restoration.
        blocks: residual blocks of each of its parts.
        descriptors: match with the descriptors of the paper; else with VGG19's relu3_1, which nobody has to train.
    """

    def __init__(self, features: int = 64, blocks: int = 16, descriptors: bool = True) -> None:
        super().__init__()
        self.net_g = _Restoration(features, blocks)
        self.net_extractor = _Descriptors().requires_grad_(False) if descriptors else None
        self.vgg = VGG19Features(padding_mode="zeros").requires_grad_(False)

    def forward(self, image: Tensor, references: Sequence[Tensor]) -> Tensor:
        """`[B,3,h,w]` and a reference `[B,3,Hr,Wr]`, in `[0,1]` → `[B,3,4h,4w]`. Of several the first is used.

        Both are padded with zeros to a common size, as the authors do. Raises ValueError without a reference, which
        the method cannot do without.
        """
        if not references:
            raise ValueError("C2-Matching needs a reference")
        height, width = image.shape[-2:]
        reference = references[0]
        cells = [max(own, -(-side // 4)) for own, side in zip(image.shape[-2:], reference.shape[-2:], strict=True)]
        padded = _grown(image, cells[0], cells[1])
        reference = _grown(reference, 4 * cells[0], 4 * cells[1])
        with torch.no_grad():
            large = Downsample("bicubic", 4).upsample(padded)
            textures = self.vgg(reference)[::-1]  # ¼, ½, full resolution
            if self.net_extractor is None:
                described = self.vgg(large)[-1], textures[0]
            else:
                described = self.net_extractor(large, reference)
            index, _ = match(*(F.normalize(x, dim=1) for x in described))
        result = self.net_g(padded, _flow(index, cells[1] - 2), textures)
        return result[..., : 4 * height, : 4 * width]


def _grown(x: Tensor, height: int, width: int) -> Tensor:
    """Zeros below and to the right, up to that size."""
    return F.pad(x, (0, width - x.shape[-1], 0, height - x.shape[-2]))


def _flow(index: Tensor, columns: int) -> Tensor:
    """How far from each patch its match lies: index `[B,h-2,w-2]` among patches in rows of `columns` → `[B,2,h,w]`, x
    and y in cells, named after the patch's upper left cell; zero in the last two rows and columns.
    """
    row = torch.arange(index.shape[1], device=index.device)[:, None]
    column = torch.arange(index.shape[2], device=index.device)
    flow = torch.stack((index % columns - column, index // columns - row), dim=1)
    return F.pad(flow.float(), (0, 2, 0, 2))


class _Descriptors(nn.Module):
    """One network for the enlarged image, one for the reference: both see the same place alike."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_extraction_image1 = _Descriptor()
        self.feature_extraction_image2 = _Descriptor()

    def forward(self, image: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """`[B,3,4h,4w]` in `[0,1]` each → `[B,256,h,w]` each."""
        return self.feature_extraction_image1(image), self.feature_extraction_image2(reference)


class _Descriptor(nn.Module):
    """VGG16 up to conv3_1, before its ReLU."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential()
        for name, inputs, outputs in (("1_1", 3, 64), ("1_2", 64, 64), ("2_1", 64, 128), ("2_2", 128, 128)):
            self.model.add_module(f"conv{name}", _conv3(inputs, outputs))
            self.model.add_module(f"relu{name}", nn.ReLU())
            if name.endswith("_2"):
                self.model.add_module(f"pool{name[0]}", nn.MaxPool2d(2))
        self.model.add_module("conv3_1", _conv3(128, 256))
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(SPREAD).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        return self.model((image - self.mean) / self.std)


class _Restoration(nn.Module):
    def __init__(self, features: int, blocks: int) -> None:
        super().__init__()
        self.content_extractor = _Content(features, blocks)
        self.dyn_agg_restore = _Aggregation(features, blocks)

    def forward(self, image: Tensor, flow: Tensor, textures: Sequence[Tensor]) -> Tensor:
        base = F.interpolate(image, scale_factor=4, mode="bilinear", align_corners=False)
        return base + self.dyn_agg_restore(self.content_extractor(image), flow, textures)


class _Content(nn.Module):
    def __init__(self, features: int, blocks: int) -> None:
        super().__init__()
        self.conv_first = _conv3(3, features)
        self.body = _blocks(features, blocks)

    def forward(self, image: Tensor) -> Tensor:
        return self.body(F.leaky_relu(self.conv_first(image), SLOPE))


class _Aggregation(nn.Module):
    """Dynamic aggregation: the same three steps at ¼, ½ and full resolution."""

    def __init__(self, features: int, blocks: int) -> None:
        super().__init__()
        for size, texture in (("small", 256), ("medium", 128), ("large", 64)):
            self.add_module(f"{size}_offset_conv1", _conv3(features + texture, texture))
            self.add_module(f"{size}_offset_conv2", _conv3(texture, texture))
            self.add_module(f"{size}_dyn_agg", _Deformable(texture))
            self.add_module(f"head_{size}", nn.Sequential(_conv3(features + texture, features), nn.LeakyReLU(SLOPE)))
            self.add_module(f"body_{size}", _blocks(features, blocks))
            self.add_module(f"tail_{size}", _tail(features, last=size == "large"))

    def forward(self, x: Tensor, flow: Tensor, textures: Sequence[Tensor]) -> Tensor:
        """Features `[B,C,h,w]`, flow `[B,2,h,w]`, textures of the reference coarse to fine → `[B,3,4h,4w]`."""
        for size, scale, texture in zip(("small", "medium", "large"), (1, 2, 4), textures, strict=True):
            part = {name: self.get_submodule(name) for name in _names(size)}
            guide = torch.cat((x, texture), dim=1)
            for number in (1, 2):
                guide = F.leaky_relu(part[f"{size}_offset_conv{number}"](guide), SLOPE)
            found = F.leaky_relu(part[f"{size}_dyn_agg"](texture, guide, _offsets(flow, scale)), SLOPE)
            x = x + part[f"body_{size}"](part[f"head_{size}"](torch.cat((x, found), dim=1)))
            x = part[f"tail_{size}"](x)
        return x


def _names(size: str) -> list[str]:
    return [f"{size}_{part}" for part in ("offset_conv1", "offset_conv2", "dyn_agg")] + [
        f"{part}_{size}" for part in ("head", "body", "tail")
    ]


def _offsets(flow: Tensor, scale: int) -> Tensor:
    """Where the nine taps of a level start: `[B,9,2,h·scale,w·scale]`, x and y in its pixels.

    Tap (i, j) follows the patch of which this pixel's cell is at row i, column j; zero where there is none.
    """
    height, width = flow.shape[-2:]
    shifted = [F.pad(flow, (j, 0, i, 0))[..., :height, :width] for i in range(3) for j in range(3)]
    taps = torch.stack(shifted, dim=1) * scale
    return taps.repeat_interleave(scale, dim=3).repeat_interleave(scale, dim=4)


class _Deformable(nn.Module):
    """Modulated deformable convolution, 3×3, whose offsets are added to those that matching found."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.uniform_(self.weight, -((TAPS * channels) ** -0.5), (TAPS * channels) ** -0.5)
        self.conv_offset_mask = _conv3(channels, 3 * TAPS * GROUPS)
        nn.init.zeros_(self.conv_offset_mask.weight)
        nn.init.zeros_(self.conv_offset_mask.bias)  # type: ignore[arg-type]

    def forward(self, texture: Tensor, guide: Tensor, start: Tensor) -> Tensor:
        """Texture `[B,C,H,W]`, guide `[B,C,H,W]`, start `[B,9,2,H,W]` → `[B,C,H,W]`; zeros beyond the border."""
        batch, channels, height, width = texture.shape
        offset, mask = self.conv_offset_mask(guide).split((2 * TAPS * GROUPS, TAPS * GROUPS), dim=1)
        # (group, tap, y or x) as the authors' operator orders them
        offset = offset.view(batch, GROUPS, TAPS, 2, height, width).flip(3) + start[:, None]
        mask = mask.sigmoid().view(batch, GROUPS, TAPS, height, width)
        groups = texture.reshape(batch * GROUPS, channels // GROUPS, height, width)
        weight = self.weight.flatten(1).view(1, channels, -1)  # [1,C,9C], channels before taps
        rows = max(1, GATHERED // (TAPS * channels * width * batch))
        last = torch.tensor([width - 1, height - 1], device=texture.device).view(2, 1, 1)
        bands = []
        for top in range(0, height, rows):
            band = slice(top, min(top + rows, height))
            places = _places(offset[..., band, :], top)  # [B,8,9,2,n,W]
            grid = (2 * places / last - 1).movedim(3, -1).reshape(batch * GROUPS, -1, width, 2)
            values = F.grid_sample(groups, grid, align_corners=True)
            values = values.view(batch, GROUPS, channels // GROUPS, TAPS, -1, width) * mask[:, :, None, :, band]
            bands.append((weight @ values.reshape(batch, channels * TAPS, -1)).view(batch, channels, -1, width))
        return torch.cat(bands, dim=2) + self.bias.view(1, -1, 1, 1)


def _places(offset: Tensor, top: int) -> Tensor:
    """Offsets `[B,8,9,2,n,W]`, x before y, of rows from `top` on → the places themselves."""
    rows, columns = offset.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(top, top + rows, device=offset.device), torch.arange(columns, device=offset.device), indexing="ij"
    )
    tap = torch.arange(TAPS, device=offset.device)
    taps = torch.stack((tap % 3 - 1, tap // 3 - 1), dim=1)[..., None, None]  # [9,2,1,1]
    return offset + torch.stack((x, y)) + taps


def _tail(features: int, last: bool) -> nn.Sequential:
    if last:
        return nn.Sequential(_conv3(features, features // 2), nn.LeakyReLU(SLOPE), _conv3(features // 2, 3))
    return nn.Sequential(_conv3(features, 4 * features), nn.PixelShuffle(2), nn.LeakyReLU(SLOPE))


def _blocks(features: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(features) for _ in range(count)))


def _conv3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)
