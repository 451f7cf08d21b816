"""Foreign networks, written out from their public descriptions as functions of a state dict: what the converted ones
are compared with. Random weights, small sizes; nothing here comes from `def_hub`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

State = dict[str, Tensor]


class Weights:
    """Random layers, under the names of the original network."""

    def __init__(self, seed: int = 0) -> None:
        self.state: State = {}
        self.generator = torch.Generator().manual_seed(seed)

    def random(self, *shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(*shape, generator=self.generator)

    def layer(self, name: str, *shape: int) -> None:
        fan = math.prod(shape[1:])
        self.state[f"{name}.weight"] = self.random(*shape, scale=fan**-0.5)
        self.state[f"{name}.bias"] = self.random(shape[0], scale=0.1)

    def norm(self, name: str, channels: int) -> None:
        self.state[f"{name}.weight"] = 1 + self.random(channels, scale=0.2)
        self.state[f"{name}.bias"] = self.random(channels, scale=0.2)


# ------------------------------------------------------------------ guided-diffusion (ADM)


@dataclass(frozen=True)
class ADM:
    """guided-diffusion's U-Net. `attention` has one entry for each level, fine to coarse."""

    width: int = 32
    multipliers: tuple[int, ...] = (1, 2, 2)
    attention: tuple[bool, ...] = (False, True, True)
    layers: int = 1
    head: int = 32
    scale_shift: bool = True
    resblock_updown: bool = True
    new_order: bool = False
    inputs: int = 3

    def blocks(self) -> Iterator[tuple[str, list[tuple[str, str, int, int]]]]:
        """The blocks in the order of computation: (name, modules as (kind, name, input channels, output channels))."""
        channels, skips = self.width, [self.width]
        number = 1
        levels = len(self.multipliers)
        for level, multiplier in enumerate(self.multipliers):
            out = self.width * multiplier
            for _ in range(self.layers):
                name = f"input_blocks.{number}"
                modules = [("res", f"{name}.0", channels, out)]
                if self.attention[level]:
                    modules.append(("attention", f"{name}.1", out, out))
                yield "down", modules
                channels, number = out, number + 1
                skips.append(channels)
            if level < levels - 1:
                kind = "res-down" if self.resblock_updown else "conv-down"
                yield "down", [(kind, f"input_blocks.{number}.0", channels, channels)]
                number += 1
                skips.append(channels)
        yield (
            "middle",
            [
                ("res", "middle_block.0", channels, channels),
                ("attention", "middle_block.1", channels, channels),
                ("res", "middle_block.2", channels, channels),
            ],
        )
        number = 0
        for level in reversed(range(levels)):
            out = self.width * self.multipliers[level]
            for layer in range(self.layers + 1):
                name = f"output_blocks.{number}"
                modules = [("res", f"{name}.0", channels + skips.pop(), out)]
                if self.attention[level]:
                    modules.append(("attention", f"{name}.1", out, out))
                if level > 0 and layer == self.layers:
                    kind = "res-up" if self.resblock_updown else "conv-up"
                    modules.append((kind, f"{name}.{len(modules)}", out, out))
                yield "up", modules
                channels, number = out, number + 1

    def random_state(self, seed: int = 0) -> State:
        weights, embedding = Weights(seed), 4 * self.width
        weights.layer("time_embed.0", embedding, self.width)
        weights.layer("time_embed.2", embedding, embedding)
        weights.layer("input_blocks.0.0", self.width, self.inputs, 3, 3)
        for _, modules in self.blocks():
            for kind, name, a, b in modules:
                if kind.startswith("res"):
                    weights.norm(f"{name}.in_layers.0", a)
                    weights.layer(f"{name}.in_layers.2", b, a, 3, 3)
                    weights.layer(f"{name}.emb_layers.1", b * (2 if self.scale_shift else 1), embedding)
                    weights.norm(f"{name}.out_layers.0", b)
                    weights.layer(f"{name}.out_layers.3", b, b, 3, 3)
                    if a != b:
                        weights.layer(f"{name}.skip_connection", b, a, 1, 1)
                elif kind == "attention":
                    weights.norm(f"{name}.norm", a)
                    weights.layer(f"{name}.qkv", 3 * a, a, 1)
                    weights.layer(f"{name}.proj_out", a, a, 1)
                else:
                    weights.layer(f"{name}.{'op' if kind == 'conv-down' else 'conv'}", a, a, 3, 3)
        weights.norm("out.0", self.width)
        weights.layer("out.2", 6, self.width, 3, 3)
        return weights.state

    def __call__(self, state: State, x: Tensor, timestep: Tensor) -> Tensor:
        """x `[B, 3, H, W]`, timestep `[B]` → `[B, 6, H, W]`."""

        def conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
            weight = state[f"{name}.weight"]
            return F.conv2d(x, weight, state[f"{name}.bias"], stride=stride, padding=weight.shape[-1] // 2)

        def linear(name: str, x: Tensor) -> Tensor:
            return x @ state[f"{name}.weight"].flatten(1).T + state[f"{name}.bias"]

        def norm(name: str, x: Tensor) -> Tensor:
            return F.group_norm(x, 32, state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-5)

        def residual(name: str, x: Tensor, resample: str) -> Tensor:
            h = F.silu(norm(f"{name}.in_layers.0", x))
            if resample == "down":
                h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
            elif resample == "up":
                h, x = (z.repeat_interleave(2, -1).repeat_interleave(2, -2) for z in (h, x))
            h = conv(f"{name}.in_layers.2", h)
            time = linear(f"{name}.emb_layers.1", F.silu(embedding))[:, :, None, None]
            if self.scale_shift:
                scale, shift = time.chunk(2, dim=1)
                h = norm(f"{name}.out_layers.0", h) * (1 + scale) + shift
            else:
                h = norm(f"{name}.out_layers.0", h + time)
            h = conv(f"{name}.out_layers.3", F.silu(h))
            return h + (conv(f"{name}.skip_connection", x) if f"{name}.skip_connection.weight" in state else x)

        def attend(name: str, x: Tensor) -> Tensor:
            batch, channels, height, width = x.shape
            qkv = linear(f"{name}.qkv", norm(f"{name}.norm", x).flatten(2).transpose(1, 2))  # [B, HW, 3C]
            heads = channels // self.head
            if self.new_order:  # q of all heads, k of all heads, v of all heads
                q, k, v = qkv.unflatten(2, (3, heads, self.head)).permute(2, 0, 3, 1, 4)
            else:  # q, k, v of each head
                q, k, v = qkv.unflatten(2, (heads, 3, self.head)).permute(3, 0, 2, 1, 4)
            weights = (q @ k.transpose(-1, -2) / math.sqrt(self.head)).softmax(-1)
            mixed = (weights @ v).transpose(1, 2).flatten(2)
            return x + linear(f"{name}.proj_out", mixed).transpose(1, 2).view(batch, channels, height, width)

        half = self.width // 2
        frequencies = torch.exp(-math.log(10000) * torch.arange(half) / half)
        angles = timestep[:, None].float() * frequencies
        embedding = torch.cat((angles.cos(), angles.sin()), dim=1)
        embedding = linear("time_embed.2", F.silu(linear("time_embed.0", embedding)))

        h = conv("input_blocks.0.0", x)
        skips = [h]
        for side, modules in self.blocks():
            if side == "up":
                h = torch.cat((h, skips.pop()), dim=1)
            for kind, name, *_ in modules:
                if kind.startswith("res"):
                    h = residual(name, h, kind[4:])
                elif kind == "attention":
                    h = attend(name, h)
                elif kind == "conv-down":
                    h = conv(f"{name}.op", h, stride=2)
                else:
                    h = conv(f"{name}.conv", h.repeat_interleave(2, -1).repeat_interleave(2, -2))
            if side == "down":
                skips.append(h)
        return conv("out.2", F.silu(norm("out.0", h)))


# ------------------------------------------------------------------ VGG19 (torchvision, timm)

VGG19 = (64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512, 512, 512, 512, "M")


def vgg19_state(shrink: int = 1, seed: int = 0) -> State:
    """`features.N` and a classifier. Unused layers, from relu4_1 on, have `shrink` times fewer channels."""
    weights, number, inputs = Weights(seed), 0, 3
    for entry in VGG19:
        if entry == "M":
            number += 1
            continue
        outputs = int(entry) // (shrink if number > 16 else 1)
        weights.layer(f"features.{number}", outputs, inputs, 3, 3)
        inputs, number = outputs, number + 2
    weights.layer("classifier.0", 8, inputs)
    return weights.state


def vgg19(state: State, image: Tensor, prefix: str = "features.") -> list[Tensor]:
    """relu1_1, relu2_1 and relu3_1 of images in [0, 1], with ImageNet's normalisation."""
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    x = (image - mean[:, None, None]) / std[:, None, None]
    found, number = [], 0
    for entry in VGG19[:7]:  # up to relu3_1
        if entry == "M":
            x, number = F.max_pool2d(x, 2), number + 1
            continue
        x = F.conv2d(x, state[f"{prefix}{number}.weight"], state[f"{prefix}{number}.bias"], padding=1).relu()
        if number in (0, 5, 10):
            found.append(x)
        number += 2
    return found


# ------------------------------------------------------------------ TTSR


def ttsr_state(blocks: tuple[int, int, int, int] = (2, 1, 1, 1), width: int = 8, seed: int = 0) -> State:
    weights = Weights(seed)

    def conv(name: str, inputs: int, outputs: int, size: int = 3) -> None:
        weights.layer(f"MainNet.{name}", outputs, inputs, size, size)

    def tower(name: str, count: int) -> None:
        for number in range(count):
            conv(f"{name}.{number}.conv1", width, width)
            conv(f"{name}.{number}.conv2", width, width)

    conv("SFE.conv_head", 3, width)
    tower("SFE.RBs", blocks[0])
    conv("SFE.conv_tail", width, width)
    for stage, texture in ((1, 256), (2, 128), (3, 64)):
        conv(f"conv{stage}{stage}_head", texture + width, width)
        for scale in range(1, stage + 1):
            tower(f"RB{stage}{scale}", blocks[stage])
            conv(f"conv{stage}{scale}_tail", width, width)
    conv("conv12", width, 4 * width)
    conv("conv23", width, 4 * width)
    for name, size in (("conv12", 1), ("conv21", 3)):
        conv(f"ex12.{name}", width, width, size)
    for number in (1, 2):
        conv(f"ex12.conv_merge{number}", 2 * width, width)
    for name in ("conv12", "conv13", "conv23"):
        conv(f"ex123.{name}", width, width, 1)
    for name in ("conv21", "conv31_1", "conv31_2", "conv32"):
        conv(f"ex123.{name}", width, width)
    for number in (1, 2, 3):
        conv(f"ex123.conv_merge{number}", 3 * width, width)
    conv("merge_tail.conv13", width, width, 1)
    conv("merge_tail.conv23", width, width, 1)
    conv("merge_tail.conv_merge", 3 * width, width)
    conv("merge_tail.conv_tail1", width, width // 2)
    conv("merge_tail.conv_tail2", width // 2, 3, 1)
    vgg, homes = vgg19_state(16, seed), {0: 1, 2: 2, 5: 2, 7: 3, 10: 3}
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    for copy in ("LTE", "LTE_copy"):
        for number, home in homes.items():
            for kind in ("weight", "bias"):
                weights.state[f"{copy}.slice{home}.{number}.{kind}"] = vgg[f"features.{number}.{kind}"]
        weights.state[f"{copy}.sub_mean.weight"] = torch.diag(1 / std)[:, :, None, None]
        weights.state[f"{copy}.sub_mean.bias"] = -mean / std
    return weights.state


def ttsr(state: State, lr: Tensor, lrsr: Tensor, ref: Tensor, refsr: Tensor, residual_scale: float = 1.0) -> Tensor:
    """LR image, its bicubic enlargement, the reference and its down-up version, all in [0, 1] → result in [0, 1]."""

    def conv(name: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = state[f"MainNet.{name}.weight"]
        return F.conv2d(x, weight, state[f"MainNet.{name}.bias"], stride=stride, padding=weight.shape[-1] // 2)

    def enlarge(x: Tensor, factor: int) -> Tensor:
        return F.interpolate(x, scale_factor=factor, mode="bicubic")

    def tower(name: str, x: Tensor) -> Tensor:
        number = 0
        while f"MainNet.{name}.{number}.conv1.weight" in state:
            block = f"{name}.{number}"
            x = x + residual_scale * conv(f"{block}.conv2", conv(f"{block}.conv1", x).relu())
            number += 1
        return x

    def features(image: Tensor) -> list[Tensor]:
        names = ("slice1.0", "slice2.2", "slice2.5", "slice3.7", "slice3.10")
        numbered = {f"{n.split('.')[1]}.{k}": state[f"LTE.{n}.{k}"] for n in names for k in ("weight", "bias")}
        return vgg19(numbered, image, prefix="")

    # search
    query, key = features(lrsr)[2], features(refsr)[2]
    height, width = query.shape[2:]
    patches = F.normalize(F.unfold(query, 3, padding=1), dim=1)
    keys = F.normalize(F.unfold(key, 3, padding=1), dim=1)
    similarity = keys.transpose(1, 2) @ patches
    best, index = similarity.max(dim=1)
    confidence = best.view(len(lr), 1, height, width)

    # transfer: patches of 3×3 cells, folded back, divided by nine
    textures = []
    for level, stride in zip(reversed(features(ref)), (1, 2, 4), strict=True):
        size, padding = 3 * stride, stride
        unfolded = F.unfold(level, size, padding=padding, stride=stride)
        taken = unfolded.gather(2, index[:, None].expand(-1, unfolded.shape[1], -1))
        out = (height * stride, width * stride)
        textures.append(F.fold(taken, out, size, padding=padding, stride=stride) / 9)

    # integration
    x = conv("SFE.conv_head", 2 * lr - 1).relu()
    x = x + conv("SFE.conv_tail", tower("SFE.RBs", x))
    x1 = x + confidence * conv("conv11_head", torch.cat((x, textures[0]), 1))
    x1 = x1 + conv("conv11_tail", tower("RB11", x1))

    x2 = F.pixel_shuffle(conv("conv12", x1), 2).relu()
    x2 = x2 + enlarge(confidence, 2) * conv("conv22_head", torch.cat((x2, textures[1]), 1))
    from_2, from_1 = conv("ex12.conv21", x2, 2).relu(), conv("ex12.conv12", enlarge(x1, 2)).relu()
    r1 = conv("ex12.conv_merge1", torch.cat((x1, from_2), 1)).relu()
    r2 = conv("ex12.conv_merge2", torch.cat((x2, from_1), 1)).relu()
    x1 = x1 + conv("conv21_tail", tower("RB21", r1))
    x2 = x2 + conv("conv22_tail", tower("RB22", r2))

    x3 = F.pixel_shuffle(conv("conv23", x2), 2).relu()
    x3 = x3 + enlarge(confidence, 4) * conv("conv33_head", torch.cat((x3, textures[2]), 1))
    p12, p13 = conv("ex123.conv12", enlarge(x1, 2)).relu(), conv("ex123.conv13", enlarge(x1, 4)).relu()
    p21, p23 = conv("ex123.conv21", x2, 2).relu(), conv("ex123.conv23", enlarge(x2, 2)).relu()
    p31 = conv("ex123.conv31_2", conv("ex123.conv31_1", x3, 2).relu(), 2).relu()
    p32 = conv("ex123.conv32", x3, 2).relu()
    r1 = conv("ex123.conv_merge1", torch.cat((x1, p21, p31), 1)).relu()
    r2 = conv("ex123.conv_merge2", torch.cat((x2, p12, p32), 1)).relu()
    r3 = conv("ex123.conv_merge3", torch.cat((x3, p13, p23), 1)).relu()
    x1 = x1 + conv("conv31_tail", tower("RB31", r1))
    x2 = x2 + conv("conv32_tail", tower("RB32", r2))
    x3 = x3 + conv("conv33_tail", tower("RB33", r3))

    p13, p23 = conv("merge_tail.conv13", enlarge(x1, 4)).relu(), conv("merge_tail.conv23", enlarge(x2, 2)).relu()
    x = conv("merge_tail.conv_merge", torch.cat((x3, p13, p23), 1)).relu()
    x = conv("merge_tail.conv_tail2", conv("merge_tail.conv_tail1", x)).clamp(-1, 1)
    return (x + 1) / 2
