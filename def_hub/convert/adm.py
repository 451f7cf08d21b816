"""OpenAI's guided-diffusion U-Net (ADM) → `UNet2DModel` and its scheduler.

The architecture is read from the names and shapes of the tensors. They do not reveal the channels of an attention head,
the order of q, k and v, the noise schedule and the size of the images; these are arguments. Source: the code published
with "Diffusion Models Beat GANs on Image Synthesis" (guided_diffusion/unet.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from diffusers import DDIMScheduler, UNet2DModel

from def_hub.convert.checkpoint import StateDict, take

RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
ENDS = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}


def convert_adm(
    state: StateDict,
    *,
    image_size: int = 256,
    head_channels: int = 64,
    heads: int | None = None,
    new_attention_order: bool = False,
    schedule: Literal["linear", "cosine"] = "linear",
) -> tuple[UNet2DModel, DDIMScheduler]:
    """The network and the noise schedule of a checkpoint.

    The defaults fit the 256×256 unconditional model. All six output channels are kept. The last three are a learned
    variance, which `Denoiser` drops.

    Args:
        state: see `read_checkpoint`.
        image_size: side of the training images, in pixels.
        head_channels: channels of an attention head (their `num_head_channels`).
        heads: number of attention heads (their `num_heads`), for models with a fixed number; replaces `head_channels`.
        new_attention_order: their flag `use_new_attention_order`.
        schedule: "cosine" for the 64×64 models.

    Raises:
        ValueError: if the checkpoint is of another kind, or `UNet2DModel` cannot represent it.
    """
    if image_size < 1 or head_channels < 1 or (heads is not None and heads < 1):
        raise ValueError(f"expected positive sizes, got {image_size=}, {head_channels=}, {heads=}")
    if schedule not in ("linear", "cosine"):
        raise ValueError(f"schedule: expected 'linear' or 'cosine', got {schedule!r}")
    plan = _read_plan(state)
    if heads is not None:
        head_channels = _width_of_heads(plan, heads)
    unet = UNet2DModel(**_config(plan, state, image_size, head_channels))
    unet.load_state_dict(_Renaming(plan, state, head_channels, new_attention_order).whole())
    linear: dict[str, Any] = {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}
    scheduler = DDIMScheduler(
        num_train_timesteps=1000,
        prediction_type="epsilon",
        clip_sample=False,
        **(linear if schedule == "linear" else {"beta_schedule": "squaredcos_cap_v2"}),
    )
    return unet.eval(), scheduler


@dataclass(frozen=True)
class _Plan:
    """The architecture. `channels` and `attention` have one entry for each level, fine to coarse."""

    channels: tuple[int, ...]
    attention: tuple[bool, ...]
    layers: int
    resample: Literal["resnet", "conv"]
    scale_shift: bool


def _read_plan(state: StateDict) -> _Plan:
    """The architecture, from the names and shapes of the tensors."""
    if "label_emb.weight" in state:
        raise ValueError("a class-conditional checkpoint (label_emb): expected an unconditional one")
    if "encoder_pool.0.weight" in state or not any(name.startswith("output_blocks.") for name in state):
        raise ValueError("not a guided-diffusion U-Net: it has no output_blocks (a classifier?)")
    stem = take(state, "input_blocks.0.0.weight")
    width = take(state, "time_embed.0.weight").shape[1]
    if stem.ndim != 4:
        raise ValueError(f"expected a network of images, whose first weight is 4-dimensional, got {list(stem.shape)}")
    if width != stem.shape[0]:
        raise ValueError(
            f"time embedding of {width} channels with {stem.shape[0]} at the first level: UNet2DModel has one number "
            "for both (a first channel multiplier other than 1, as in the 512×512 models)"
        )
    if width % 32:
        raise ValueError(f"groups of normalisation: 32 do not divide {width} channels")

    # The decoder shows the levels: each level except the last ends in a block with upsampling.
    count = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("output_blocks."))
    levels: list[list[int]] = [[]]
    kinds = set()
    for number in range(count):
        levels[-1].append(number)
        last = [m for m in (1, 2) if not _is_attention(state, f"output_blocks.{number}.{m}")]
        for module in last:
            prefix = f"output_blocks.{number}.{module}"
            if f"{prefix}.in_layers.2.weight" in state:
                kinds.add("resnet")
            elif f"{prefix}.conv.weight" in state:
                kinds.add("conv")
            else:
                continue
            levels.append([])
    if len(levels) > 1 and len(kinds) != 1:
        raise ValueError(
            f"resampling: expected either residual blocks or convolutions, got {sorted(kinds) or 'neither'}"
        )
    sizes = {len(level) for level in levels}
    if len(sizes) != 1:
        raise ValueError(
            f"residual blocks per level: UNet2DModel has one number for all, got {[len(x) - 1 for x in levels]}"
        )
    coarse_to_fine = [int(take(state, f"output_blocks.{x[0]}.0.out_layers.3.weight").shape[0]) for x in levels]
    attention: list[bool] = []
    for level in levels:
        present = {_is_attention(state, f"output_blocks.{number}.1") for number in level}
        if len(present) != 1:
            raise ValueError(f"attention: expected it in all blocks of a level or in none (output_blocks {level})")
        attention += present
    first = "output_blocks.0.0"
    out, doubled = (take(state, f"{first}.{n}.weight").shape[0] for n in ("out_layers.3", "emb_layers.1"))
    return _Plan(
        channels=tuple(reversed(coarse_to_fine)),
        attention=tuple(reversed(attention)),
        layers=sizes.pop() - 1,
        resample="conv" if kinds == {"conv"} else "resnet",
        scale_shift=bool(doubled == 2 * out),
    )


def _is_attention(state: StateDict, prefix: str) -> bool:
    return f"{prefix}.qkv.weight" in state


def _width_of_heads(plan: _Plan, heads: int) -> int:
    attending = [c for c, a in zip(plan.channels, plan.attention, strict=True) if a] + [plan.channels[-1]]
    if len(set(attending)) != 1 or attending[0] % heads:
        raise ValueError(
            f"{heads} heads at levels of {sorted(set(attending))} channels: UNet2DModel has the same number of "
            "channels in every head, not the same number of heads at every level"
        )
    return attending[0] // heads


def _config(plan: _Plan, state: StateDict, image_size: int, head_channels: int) -> dict[str, Any]:
    for channels, attends in zip(plan.channels, plan.attention, strict=True):
        if (attends or channels == plan.channels[-1]) and channels % head_channels:
            raise ValueError(
                f"head_channels: {head_channels} does not divide the {channels} channels of a level with attention"
            )
    plain = "ResnetDownsampleBlock2D" if plan.resample == "resnet" else "DownBlock2D"
    return {
        "sample_size": image_size,
        "in_channels": take(state, "input_blocks.0.0.weight").shape[1],
        "out_channels": take(state, "out.2.weight").shape[0],
        "block_out_channels": plan.channels,
        "layers_per_block": plan.layers,
        "down_block_types": tuple("AttnDownBlock2D" if a else plain for a in plan.attention),
        "up_block_types": tuple(
            "AttnUpBlock2D" if a else plain.replace("Downsample", "Upsample").replace("Down", "Up")
            for a in reversed(plan.attention)
        ),
        "downsample_type": plan.resample,
        "upsample_type": plan.resample,
        "resnet_time_scale_shift": "scale_shift" if plan.scale_shift else "default",
        "attention_head_dim": head_channels,
        "norm_num_groups": 32,
        "attn_norm_num_groups": 32,  # by default the middle attention has no norm if time enters by scale and shift
        "norm_eps": 1e-5,
        "flip_sin_to_cos": True,  # cosines first
        "freq_shift": 0,
    }


class _Renaming:
    """Collects the tensors of a checkpoint under the names of `UNet2DModel`.

    Args:
        new_order: q, k and v are stored one after the other; otherwise they are interleaved head by head.
    """

    def __init__(self, plan: _Plan, state: StateDict, head_channels: int, new_order: bool) -> None:
        self.plan, self.state, self.head_channels, self.new_order = plan, state, head_channels, new_order
        self.result: StateDict = {}
        self.used: set[str] = set()

    def whole(self) -> StateDict:
        """All tensors by their new names. Raises ValueError if some tensors have no place in a `UNet2DModel`."""
        for theirs, ours in ENDS.items():
            self._copy(theirs, ours)
        self._encoder()
        self._resnet("middle_block.0", "mid_block.resnets.0")
        self._attention("middle_block.1", "mid_block.attentions.0")
        self._resnet("middle_block.2", "mid_block.resnets.1")
        self._decoder()
        if left := sorted(set(self.state) - self.used):
            raise ValueError(
                f"checkpoint: {len(left)} tensors have no place in a UNet2DModel, such as {', '.join(left[:3])}"
            )
        return self.result

    def _encoder(self) -> None:
        levels, number = len(self.plan.channels), 1
        for level in range(levels):
            for layer in range(self.plan.layers):
                self._resnet(f"input_blocks.{number}.0", f"down_blocks.{level}.resnets.{layer}")
                if self.plan.attention[level]:
                    self._attention(f"input_blocks.{number}.1", f"down_blocks.{level}.attentions.{layer}")
                number += 1
            if level < levels - 1:
                if self.plan.resample == "resnet":
                    self._resnet(f"input_blocks.{number}.0", f"down_blocks.{level}.downsamplers.0")
                else:
                    self._copy(f"input_blocks.{number}.0.op", f"down_blocks.{level}.downsamplers.0.conv")
                number += 1

    def _decoder(self) -> None:
        levels, number = len(self.plan.channels), 0
        for level in range(levels):
            attends = self.plan.attention[levels - 1 - level]
            for layer in range(self.plan.layers + 1):
                self._resnet(f"output_blocks.{number}.0", f"up_blocks.{level}.resnets.{layer}")
                if attends:
                    self._attention(f"output_blocks.{number}.1", f"up_blocks.{level}.attentions.{layer}")
                if layer == self.plan.layers and level < levels - 1:
                    theirs = f"output_blocks.{number}.{2 if attends else 1}"
                    if self.plan.resample == "resnet":
                        self._resnet(theirs, f"up_blocks.{level}.upsamplers.0")
                    else:
                        self._copy(f"{theirs}.conv", f"up_blocks.{level}.upsamplers.0.conv")
                number += 1

    def _copy(self, theirs: str, ours: str) -> None:
        """Weight and bias of a layer, as far as it has them."""
        for kind in ("weight", "bias"):
            if f"{theirs}.{kind}" in self.state:
                self.result[f"{ours}.{kind}"] = self.state[f"{theirs}.{kind}"]
                self.used.add(f"{theirs}.{kind}")

    def _resnet(self, theirs: str, ours: str) -> None:
        for their_layer, our_layer in RESNET.items():
            self._copy(f"{theirs}.{their_layer}", f"{ours}.{our_layer}")

    def _attention(self, theirs: str, ours: str) -> None:
        self._copy(f"{theirs}.norm", f"{ours}.group_norm")
        channels = take(self.state, f"{theirs}.norm.weight").shape[0]
        for kind in ("weight", "bias"):
            qkv = take(self.state, f"{theirs}.qkv.{kind}")
            qkv = qkv.flatten(1) if kind == "weight" else qkv  # a convolution of 1 in theirs
            if not self.new_order:  # q, k, v of the first head, then of the second head, …
                heads = channels // self.head_channels
                qkv = qkv.unflatten(0, (heads, 3, self.head_channels)).transpose(0, 1).flatten(0, 2)
            for name, part in zip(("to_q", "to_k", "to_v"), qkv.chunk(3), strict=True):
                self.result[f"{ours}.{name}.{kind}"] = part.contiguous()
            projection = take(self.state, f"{theirs}.proj_out.{kind}")
            self.result[f"{ours}.to_out.0.{kind}"] = projection.flatten(1) if kind == "weight" else projection
            self.used.update((f"{theirs}.qkv.{kind}", f"{theirs}.proj_out.{kind}"))
