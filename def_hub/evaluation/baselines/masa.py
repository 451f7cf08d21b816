"""MASA: Lu et al., "MASA-SR: Matching Acceleration and Spatial Adaptation for Reference-Based Image Super-Resolution",
CVPR 2021. 4.03 million parameters.

Matching is coarse to fine: each block of the image finds one place in the reference, and its pixels are matched around
that place only. What is carried over is adapted to the mean and spread of the image's own features.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from def_hub.evaluation.baselines.patches import match, transfer
from def_hub.evaluation.baselines.srresnet import ResidualBlock
from def_hub.observation.downsample import Downsample

BLOCK = 8
"""Side, in LR pixels, of the blocks that are matched as a whole."""
WIDER = 1.5
"""How many times wider than the block is what is searched around its match."""
DILATIONS = (1, 2, 3)
"""Of the 3×3 samples by which blocks are compared."""


class MASA(nn.Module):
    """Encoder, matching and decoder; modules are named as in the authors' release.

    Args:
        features: channels.
        encoder: residual blocks of the encoder's three levels.
        decoder: residual blocks of the decoder: three levels of the image alone, coarse to fine, then three scales with
            the reference.
    """

    def __init__(
        self,
        features: int = 64,
        encoder: tuple[int, int, int] = (4, 4, 4),
        decoder: tuple[int, int, int, int, int, int] = (2, 2, 2, 12, 8, 4),
    ) -> None:
        super().__init__()
        self.enc = _Encoder(features, encoder)
        self.decoder = _Decoder(features, decoder)

    def forward(self, image: Tensor, references: Sequence[Tensor]) -> Tensor:
        """`[B,3,h,w]` and references `[B,3,Hr,Wr]`, in `[0,1]` → `[B,3,4h,4w]`.

        Sides are padded to what the method needs by repeating the border, as its authors do; several references are
        stacked into one. Raises ValueError without a reference, which the method cannot do without.
        """
        if not references:
            raise ValueError("MASA needs a reference")
        height, width = image.shape[-2:]
        top, left = (-height % BLOCK) // 2, (-width % BLOCK) // 2
        pad = (left, -width % BLOCK - left, top, -height % BLOCK - top)
        padded = F.pad(image, pad, mode="replicate")
        reference = _stack(references)
        small = (Downsample("bicubic", 4).forward(reference).clamp(0, 1) * 255).round() / 255  # as a file is
        own, keys, values = self.enc(padded), self.enc(small)[0], self.enc(reference)
        warped = _warp(own[0], keys, values)
        result = self.decoder(own, warped) + F.interpolate(padded, scale_factor=4, mode="bicubic")
        return result[..., 4 * top : 4 * (top + height), 4 * left : 4 * (left + width)]


def _stack(references: Sequence[Tensor]) -> Tensor:
    """Below each other, every one padded to the widest and to a multiple of 16 by repeating its border."""
    width = max(-(-reference.shape[-1] // 16) * 16 for reference in references)
    padded = [
        F.pad(reference, (0, width - reference.shape[-1], 0, -reference.shape[-2] % 16), mode="replicate")
        for reference in references
    ]
    return torch.cat(padded, dim=2)


def _warp(query: Tensor, key: Tensor, values: Sequence[Tensor]) -> list[Tensor]:
    """Features of the reference where those of the image match.

    Args:
        query: `[B,C,h,w]`, both sides multiples of `BLOCK`; key: `[B,C,hk,wk]`, of the reference made 4 times smaller.
        values: of the reference, `[B,C,4hk,4wk]`, `[B,C,2hk,2wk]`, `[B,C,hk,wk]`.

    Returns:
        `[B,C,4h,4w]`, `[B,C,2h,2w]`, `[B,C,h,w]`, weighted by how similar the match is.
    """
    batch, channels, height, width = query.shape
    rows, columns = height // BLOCK, width // BLOCK
    blocks = F.unfold(F.pad(query, (1, 1, 1, 1), mode="replicate"), BLOCK + 2, stride=BLOCK)
    blocks = blocks.mT.reshape(-1, channels, BLOCK + 2, BLOCK + 2)  # [B·n,C,10,10]
    top, left, size = _windows(blocks, key, rows, columns)
    index, similarity = match(blocks, _cut(key, top, left, size, 1))  # [B·n,8,8]
    warped = []
    for scale, value in zip((4, 2, 1), values, strict=True):
        texture = transfer(_cut(value, top, left, size, scale), index, scale, border=1)  # [B·n,C,8·scale,8·scale]
        trust = F.interpolate(similarity[:, None], size=texture.shape[-2:], mode="bilinear", align_corners=False)
        laid = (texture * trust).view(batch, rows, columns, channels, BLOCK * scale, BLOCK * scale)
        warped.append(laid.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, height * scale, width * scale))
    return warped


def _windows(blocks: Tensor, key: Tensor, rows: int, columns: int) -> tuple[Tensor, Tensor, tuple[int, int]]:
    """Where in the key each block is searched for: top and left `[B,n]`, and the size of all windows."""
    batch, count = key.shape[0], rows * columns
    middle = (BLOCK + 2) // 2
    total: Tensor | float = 0.0
    for d in DILATIONS:
        samples = blocks[..., middle - d : middle + d + 1 : d, middle - d : middle + d + 1 : d]
        queries = F.normalize(samples.reshape(batch, count, -1), dim=2)
        keys = F.normalize(F.unfold(key, 3, padding=d, dilation=d), dim=1)
        total = total + queries @ keys  # [B,n,hk·wk]
    assert isinstance(total, Tensor)
    place = total.argmax(dim=2)
    corners, sizes = [], []
    for side, at, parts in ((2, place // key.shape[3], rows), (3, place % key.shape[3], columns)):
        length = key.shape[side]
        # an image of one block asks for more than the whole reference: then it is given the whole
        size = min(2 * int(length // (2 * parts) * WIDER) + 3, length)
        corners.append((at - size // 2).clamp(0, length - size))
        sizes.append(size)
    return corners[0], corners[1], (sizes[0], sizes[1])


def _cut(features: Tensor, top: Tensor, left: Tensor, size: tuple[int, int], scale: int) -> Tensor:
    """Windows `[B·n,C,size·scale]` of a level that is `scale` times finer than the places `[B,n]` are."""
    height, width = (side * scale for side in size)
    row = top.flatten()[:, None] * scale + torch.arange(height, device=top.device)  # [B·n,height]
    column = left.flatten()[:, None] * scale + torch.arange(width, device=top.device)
    sample = torch.arange(len(features), device=top.device).repeat_interleave(top.shape[1])
    return features[sample[:, None, None], :, row[:, :, None], column[:, None]].permute(0, 3, 1, 2)


class _Encoder(nn.Module):
    """Image → features at 1, ½ and ¼ of its size; the same for the image and the reference."""

    def __init__(self, features: int, blocks: Sequence[int]) -> None:
        super().__init__()
        self.conv_L1 = _conv3(3, features)
        self.blk_L1 = _blocks(features, blocks[0])
        self.conv_L2 = _conv3(features, features, stride=2)
        self.blk_L2 = _blocks(features, blocks[1])
        self.conv_L3 = _conv3(features, features, stride=2)
        self.blk_L3 = _blocks(features, blocks[2])

    def forward(self, image: Tensor) -> list[Tensor]:
        first = self.blk_L1(F.relu(self.conv_L1(image)))
        second = self.blk_L2(F.relu(self.conv_L2(first)))
        return [first, second, self.blk_L3(F.relu(self.conv_L3(second)))]


class _Decoder(nn.Module):
    """The image's own levels first, then the reference's, each adapted to what there is already."""

    def __init__(self, features: int, blocks: Sequence[int]) -> None:
        super().__init__()
        self.conv_L3 = _conv3(features, features)
        self.blk_L3 = _blocks(features, blocks[0])
        self.conv_L2 = _conv3(2 * features, features)
        self.blk_L2 = _blocks(features, blocks[1])
        self.conv_L1 = _conv3(2 * features, features)
        self.blk_L1 = _blocks(features, blocks[2])
        self.merge_warp_x1 = _conv3(2 * features, features)
        self.blk_x1 = _blocks(features, blocks[3])
        self.dram_x2 = _DualResidual(features)
        self.blk_x2 = _blocks(features, blocks[4])
        self.dram_x4 = _DualResidual(features)
        self.blk_x4 = _blocks(features, blocks[5])
        self.conv_out = _conv3(features, 3)
        self.pAda = _Adaptation(features)

    def forward(self, own: Sequence[Tensor], warped: Sequence[Tensor]) -> Tensor:
        x = self.blk_L3(F.relu(self.conv_L3(own[2])))
        x = self.blk_L2(F.relu(self.conv_L2(torch.cat((_double(x), own[1]), dim=1))))
        x = self.blk_L1(F.relu(self.conv_L1(torch.cat((_double(x), own[0]), dim=1))))
        texture = self.pAda(x, warped[2])
        x = self.blk_x1(F.relu(self.merge_warp_x1(torch.cat((texture, x), dim=1))))
        x = self.blk_x2(self.dram_x2(x, self.pAda(_double(x), warped[1])))
        x = self.blk_x4(self.dram_x4(x, self.pAda(_double(x), warped[0])))
        return self.conv_out(x)


class _Adaptation(nn.Module):
    """SAM: the reference's features with the mean and spread of the image's, and a learned correction of both."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.norm_layer = nn.InstanceNorm2d(features)
        self.conv_shared = nn.Sequential(_conv3(2 * features, features), nn.ReLU())
        self.conv_gamma = _conv3(features, features)
        self.conv_beta = _conv3(features, features)
        for conv in (self.conv_gamma, self.conv_beta):
            nn.init.zeros_(conv.weight)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]

    def forward(self, own: Tensor, texture: Tensor) -> Tensor:
        style = self.conv_shared(torch.cat((own, texture), dim=1))
        spread, mean = own.std(dim=(2, 3), keepdim=True), own.mean(dim=(2, 3), keepdim=True)
        return self.norm_layer(texture) * (self.conv_gamma(style) + spread) + self.conv_beta(style) + mean


class _DualResidual(nn.Module):
    """DRAM: the image's features and the reference's, at twice their size, each corrected by what the other lacks."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv_down_a = _conv3(features, features, stride=2)
        self.conv_up_a = nn.ConvTranspose2d(features, features, 3, stride=2, padding=1, output_padding=1)
        self.conv_down_b = _conv3(features, features, stride=2)
        self.conv_up_b = nn.ConvTranspose2d(features, features, 3, stride=2, padding=1, output_padding=1)
        self.conv_cat = _conv3(2 * features, features)

    def forward(self, own: Tensor, texture: Tensor) -> Tensor:
        a = F.relu(self.conv_up_a(F.relu(self.conv_down_a(texture)) - own)) + texture
        b = F.relu(self.conv_up_b(own - F.relu(self.conv_down_b(texture)) + own))
        return F.relu(self.conv_cat(torch.cat((a, b), dim=1)))


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _blocks(features: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(features) for _ in range(count)))


def _conv3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
