"""DetailEnhancer: the reverse diffusion loop; after each estimate the operator restores what is known (paper 4.2,
eq. 8, 9).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from def_hub.diffusion.denoiser import Denoiser
from def_hub.diffusion.normalization import SharedStatistics
from def_hub.settings import WindowMode
from def_hub.tiling import Window, blend, reflect_pad, sampled

#: called with (step, timestep, x0 `[B, 3, H, W]` in [0, 1]); what it returns, if anything, replaces x0
StepCallback = Callable[[int, int, Tensor], Tensor | None]


class Operator(Protocol):
    """What the loop asks of a degradation: see `def_hub.observation.downsample.Downsample`."""

    def pinv(self, y: Tensor) -> Tensor: ...

    def project(self, x: Tensor, y: Tensor) -> Tensor: ...


class DetailEnhancer:
    """Turns an LR image into the detail-enhanced image I_DE by range-null diffusion.

    Args:
        window, overlap: the denoiser sees square windows of this many HR pixels (overlapping by a quarter by
            default); their estimates of x₀ are blended, then projected and re-noised once for the whole image, so
            windows cannot disagree about what is known. What fits into one is seen whole.
        smallest: smaller images are extended to so many pixels along a side; the window by default.
        window_batch: windows per network call.
        window_mode: "replace" lets later windows overwrite earlier ones, as in the paper.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        operator: Operator,
        *,
        window: int = 256,
        smallest: int | None = None,
        overlap: int | None = None,
        window_batch: int = 4,
        window_mode: WindowMode = "blend",
    ) -> None:
        if window_mode not in ("blend", "replace"):
            raise ValueError(f"window_mode must be 'blend' or 'replace', got {window_mode!r}")
        smallest = window if smallest is None else smallest
        if window % denoiser.multiple:
            raise ValueError(f"the window must be a multiple of {denoiser.multiple} pixels, got {window}")
        if smallest > window:
            raise ValueError(f"smallest must not exceed the window's {window}, got {smallest}")
        self.denoiser = denoiser
        self.operator = operator
        self.window = window
        self.smallest = smallest
        self.overlap = window // 4 if overlap is None else overlap
        self.window_batch = window_batch
        self.window_mode = window_mode

    @torch.no_grad()
    def __call__(
        self,
        y: Tensor,
        *,
        num_inference_steps: int = 4,
        eta: float = 0.0,
        start: float = 1.0,
        generator: torch.Generator | None = None,
        callback: StepCallback | None = None,
    ) -> Tensor:
        """I_DE of the LR image.

        Args:
            y: `[B, 3, h, w]` in [0, 1]; for a prior that is told, planes of what is known may follow the channels.
            num_inference_steps: evaluations of the network, 1 … T.
            eta: 0 is deterministic DDIM, 1 has the noise of DDPM (DDNM used 0.85).
            start: how far up the schedule to start, in (0, 1]: 1 starts from sqrt(ᾱ_T) A†y plus noise, less keeps
                more of A†y.
            generator: source of all noise; the same one gives the same image, however the windows are cut.

        Returns:
            `[B, 3, H, W]`, not clipped, with A I_DE = y.

        Raises:
            ValueError: for steps, eta or start outside the ranges above.
        """
        self.check(num_inference_steps, eta, start)
        timesteps = self.timesteps(num_inference_steps, start)
        y, planes = y[:, :3], y[:, 3:]
        known = self.operator.pinv(y) * 2 - 1  # A†y in the schedule's [-1, 1]
        told = torch.cat((known, F.interpolate(planes, known.shape[2:])), dim=1) if planes.shape[1] else known
        y = y * 2 - 1
        alpha_bar = self.denoiser.alpha_bar(timesteps[0])
        x_t = alpha_bar.sqrt() * known + (1 - alpha_bar).sqrt() * _noise(known, generator)

        for step, timestep in enumerate(timesteps):
            x_0 = self.operator.project(self._estimate(x_t, timestep, told), y)  # eq. 9
            if callback is not None:
                changed = callback(step, timestep, (x_0 + 1) / 2)
                x_0 = x_0 if changed is None else changed * 2 - 1
            if step + 1 == len(timesteps):
                break
            # DDIM: keep the noise that the estimate implies, less what eta draws anew
            alpha_bar, alpha_next = (self.denoiser.alpha_bar(t) for t in (timestep, timesteps[step + 1]))
            noise = (x_t - alpha_bar.sqrt() * x_0) / (1 - alpha_bar).sqrt()
            sigma = eta * ((1 - alpha_next) / (1 - alpha_bar) * (1 - alpha_bar / alpha_next)).sqrt()
            x_t = alpha_next.sqrt() * x_0 + (1 - alpha_next - sigma**2).sqrt() * noise
            if eta > 0:
                x_t = x_t + sigma * _noise(x_t, generator)
        return (x_0 + 1) / 2

    def check(self, num_inference_steps: int, eta: float, start: float) -> None:
        """Raise ValueError where a call with these settings would."""
        if not 0.0 <= eta <= 1.0:
            raise ValueError(f"eta must lie in [0, 1], got {eta}")
        if not 0.0 < start <= 1.0:
            raise ValueError(f"start must lie in (0, 1], got {start}")
        most = self._first(start)
        if not isinstance(num_inference_steps, int) or not 1 <= num_inference_steps <= most:
            raise ValueError(f"num_inference_steps must be a whole number in 1 … {most}, got {num_inference_steps!r}")

    def _first(self, start: float) -> int:
        return max(round(start * len(self.denoiser.alphas_cumprod)), 1)

    def timesteps(self, num_inference_steps: int, start: float = 1.0) -> list[int]:
        """Timesteps visited, highest first: evenly spaced downwards from the start, which is always visited itself."""
        first = self._first(start)
        return [first - 1 - i * first // num_inference_steps for i in range(num_inference_steps)]

    def _estimate(self, x_t: Tensor, timestep: int, known: Tensor) -> Tensor:
        height, width = x_t.shape[-2:]
        largest = min(self.window, self.denoiser.window)
        if height <= largest and width <= largest:
            return self._windowed(x_t, timestep, known)
        # Pictures that are not seen whole are measured in one piece first, always in the same way: what a window shows
        # must not depend on where it is cut.
        piece = [sampled(t, self.denoiser.window, self.denoiser.multiple) for t in (x_t, known)]
        with SharedStatistics() as shared:
            self.denoiser(self._padded(piece[0]), timestep, self._padded(piece[1]))
            shared.fix()
            return self._windowed(x_t, timestep, known)

    def _windowed(self, x_t: Tensor, timestep: int, known: Tensor) -> Tensor:
        height, width = x_t.shape[-2:]
        x_t, known = self._padded(x_t), self._padded(known)

        def predict(group: list[Window]) -> Tensor:
            noisy, condition = (torch.cat([w.cut(t) for w in group]) for t in (x_t, known))
            return self.denoiser(noisy, timestep, condition)

        x_0 = blend(
            predict,
            x_t.shape[-2],
            x_t.shape[-1],
            self.window,
            self.overlap,
            batch=self.window_batch,
            multiple=self.denoiser.multiple,
            replace=self.window_mode == "replace",
        )
        return x_0[..., :height, :width]

    def _padded(self, x: Tensor) -> Tensor:
        """Extended to sizes that the network can take."""
        multiple = self.denoiser.multiple
        height, width = (-(-max(self.smallest, n) // multiple) * multiple for n in x.shape[-2:])
        return reflect_pad(x, height, width)


def _noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Drawn where the generator lives, so that a CPU generator gives the same image on every device."""
    device = generator.device if generator is not None else torch.device("cpu")
    return torch.randn(like.shape, generator=generator, device=device).to(like)
