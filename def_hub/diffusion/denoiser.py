"""Denoiser: noisy image → clean estimate, with any `UNet2DModel`. It owns the input scaling and the training loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from torch import Tensor

from def_hub.precision import stored_precision


class Denoiser:
    """One interface for two kinds of prior: unconditional (the paper) and conditioned on `A†y` (SR3).

    The network's channel counts decide its kind. The denoiser folds p×p pixels into channels before the network and
    unfolds them after it. p = 1 folds nothing, as in the checkpoints on the Hub. With p = 4 the network works on the
    grid of the LR image.

    | in_channels | prior |
    |---|---|
    | 3p² | unconditional; the scheduler's `prediction_type` says what it predicts |
    | 6p² | conditioned on `A†y`; the same, but a predicted "sample" is the difference to `A†y`, not the whole image |
    | 6p² + k | the same, with k planes that describe the degradation (`observation.degradation.planes`) |

    `out_channels` is 3p², or 6p² for a network that also predicts a variance (OpenAI's ADM). The variance is dropped.

    Images are in [-1, 1] here, the range of the noise schedule.
    """

    def __init__(self, unet: UNet2DModel, alphas_cumprod: Tensor, prediction_type: str = "epsilon") -> None:
        if prediction_type not in ("epsilon", "sample", "v_prediction"):
            raise ValueError(f"the scheduler predicts {prediction_type!r}; expected epsilon, sample or v_prediction")
        if unet.config.class_embed_type is not None or unet.config.num_class_embeds is not None:
            raise ValueError(
                "the prior must be unconditional or conditioned on the image, this one expects class labels"
            )
        channels, outputs = unet.config.in_channels, unet.config.out_channels
        # 3p² and 6p² are never the same number, so the outputs say what p is
        self.patch = next((p for p in range(1, 65) if outputs in (3 * p**2, 6 * p**2)), 0)
        self.image_channels = 3 * self.patch**2
        if outputs not in (self.image_channels, 2 * self.image_channels):
            raise ValueError(f"the prior must return 3p² or 6p² channels for a whole p, this one returns {outputs}")
        #: planes of what is known of the degradation, behind the condition
        self.known = channels - 2 * self.image_channels
        self.conditioned = self.known >= 0
        if not self.conditioned and channels != self.image_channels:
            raise ValueError(
                f"a prior that returns {outputs} channels must take {self.image_channels} (unconditional) or "
                f"{2 * self.image_channels} and more (conditioned on the image), this one takes {channels}"
            )
        self.unet = unet
        self.alphas_cumprod = alphas_cumprod.float()
        self.prediction_type = prediction_type
        #: both sides of an input must be multiples of this number of pixels
        self.multiple = self.patch * 2 ** (len(unet.config.down_block_types) - 1)
        #: side of the pictures that the network was trained on, in pixels
        self.trained = _side(unet.config.sample_size) * self.patch
        #: side of the default window, in pixels. Folding p×p pixels makes the network p² times cheaper, so a window of
        #: p times the side costs the same.
        self.window = self.trained * self.patch

    def alpha_bar(self, timestep: int | Tensor) -> Tensor:
        """ᾱ_t as float32 `[]` or `[B, 1, 1, 1]`."""
        value = self.alphas_cumprod[timestep]
        return value.view(-1, 1, 1, 1) if value.ndim else value

    def __call__(self, x_t: Tensor, timestep: int | Tensor, condition: Tensor) -> Tensor:
        """x₀|ₜ, the estimate of the clean image, `[B, 3, H, W]`.

        Args:
            x_t: the noisy image, `[B, 3, H, W]` in [-1, 1], with sides that are multiples of `self.multiple`.
            timestep: one for the whole batch, or `[B]`.
            condition: `A†y`, of the same shape, in [-1, 1]. For a prior with planes they follow its channels,
                `[B, 3 + known, H, W]`; absent planes count as zeros, a clean picture.
        """
        condition, planes = condition[:, :3], condition[:, 3:]
        x_in = torch.cat((x_t, condition), dim=1) if self.conditioned else x_t
        x_in = F.pixel_unshuffle(x_in, self.patch)
        if self.known > 0:
            planes = planes if planes.shape[1] else x_t.new_zeros(len(x_t), self.known, *x_t.shape[2:])
            x_in = torch.cat((x_in, F.avg_pool2d(planes, self.patch)), dim=1)
        # Channels last is the fastest layout for convolutions in half precision, and never the slowest.
        x_in = x_in.to(self.unet.dtype, memory_format=torch.channels_last)
        with stored_precision(self.unet.dtype, x_in.device):
            out = self.unet(x_in, timestep, return_dict=False)[0][:, : self.image_channels]
        out = F.pixel_shuffle(out, self.patch).to(x_t.dtype)
        alpha_bar = self.alpha_bar(timestep).to(x_t)
        if self.prediction_type == "epsilon":
            return (x_t - (1 - alpha_bar).sqrt() * out) / alpha_bar.sqrt()
        if self.prediction_type == "v_prediction":
            return alpha_bar.sqrt() * x_t - (1 - alpha_bar).sqrt() * out
        return condition + out if self.conditioned else out

    def loss(self, x: Tensor, condition: Tensor, *, final_share: float, generator: torch.Generator) -> Tensor:
        """Mean absolute error of x₀|ₜ, the training loss of this prior.

        Args:
            x: clean images `[B, 3, H, W]` in [-1, 1].
            condition: their `A†y`.
            final_share: share of the samples that get the last timestep. A conditioned sampler with few steps starts
                there and does most of its work there. The other timesteps are drawn uniformly.
        """
        steps = len(self.alphas_cumprod)
        timestep = torch.randint(0, steps, (len(x),), generator=generator)
        timestep[torch.rand(len(x), generator=generator) < final_share] = steps - 1
        noise = torch.randn(x.shape, generator=generator).to(x)
        alpha_bar = self.alpha_bar(timestep).to(x)
        x_t = alpha_bar.sqrt() * x + (1 - alpha_bar).sqrt() * noise
        return F.l1_loss(self(x_t, timestep.to(x.device), condition), x)


def _side(sample_size: int | Sequence[int] | None) -> int:
    """The side of the pictures that a network was trained on; the shorter one if they were not square."""
    return min(sample_size) if isinstance(sample_size, Sequence) else sample_size or 256
