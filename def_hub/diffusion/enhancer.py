"""DetailEnhancer: the reverse diffusion loop. After each estimate, the operator projects it so that it agrees with the
input (paper 4.2, eq. 8, 9).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
import torch.nn.functional as F
from diffusers import SchedulerMixin, UNet2DModel
from torch import Tensor

from def_hub.diffusion.denoiser import Denoiser
from def_hub.diffusion.normalization import SharedStatistics
from def_hub.settings import WindowMode
from def_hub.tiling import Window, blend, reflect_pad, sampled

#: called with (step, timestep, x0 `[B, 3, H, W]` in [0, 1]); a returned tensor replaces x0
StepCallback = Callable[[int, int, Tensor], Tensor | None]


class Operator(Protocol):
    """The methods of a degradation that the loop calls: see `def_hub.observation.downsample.Downsample`."""

    def pinv(self, y: Tensor) -> Tensor: ...

    def project(self, x: Tensor, y: Tensor) -> Tensor: ...


class DetailEnhancer:
    """Turns an LR image into the detail-enhanced image I_DE by range-null diffusion.

    Args:
        window: side of the square windows that the denoiser sees, in HR pixels. An image that fits into one window is
            denoised in one piece. Otherwise the windows' estimates of x₀ are blended; projection and new noise then
            apply to the whole image, so the windows cannot disagree about what the input decides.
        smallest: images smaller than this many HR pixels along a side are extended to it; the window by default.
        overlap: HR pixels that neighbouring windows share; a quarter of the window by default.
        window_batch: windows per network call.
        window_mode: "blend", or "replace": later windows overwrite earlier ones, as in the paper.

    Raises:
        ValueError: for an unknown `window_mode`, a window that the denoiser cannot take, or `smallest` above it.
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
        project: Callable[[Tensor], Tensor] | None = None,
        callback: StepCallback | None = None,
    ) -> Tensor:
        """I_DE of the LR image.

        Args:
            y: `[B, 3, h, w]` in [0, 1]; for a prior that is told, planes of what is known may follow the channels.
            num_inference_steps: evaluations of the network, 0 … T; 0 leaves the prior out: I_DE is then A†y.
            eta: in [0, 1]; 0 is deterministic DDIM, 1 adds the noise of DDPM (DDNM used 0.85).
            start: where on the noise schedule to start, in (0, 1]. 1 starts from sqrt(ᾱ_T) A†y plus noise; a smaller
                value keeps more of A†y.
            generator: source of all noise. The same generator draws the same noise for any windows.
            project: onto the images `[B, 3, H, W]` in [0, 1] that agree with the file, instead of those with A x = y.
            callback: see `StepCallback`.

        Returns:
            I_DE, `[B, 3, H, W]`, not clipped, with A I_DE = y, or as `project` leaves it.

        Raises:
            ValueError: for steps, eta or start outside the ranges above.
        """
        self.check(num_inference_steps, eta, start)
        timesteps = self.timesteps(num_inference_steps, start)
        y, planes = y[:, :3], y[:, 3:]
        if not timesteps:
            return self.operator.pinv(y) if project is None else project(self.operator.pinv(y))
        known = self.operator.pinv(y) * 2 - 1  # A†y in the schedule's [-1, 1]
        told = torch.cat((known, F.interpolate(planes, known.shape[2:])), dim=1) if planes.shape[1] else known
        y = y * 2 - 1
        alpha_bar = self.denoiser.alpha_bar(timesteps[0])
        x_t = alpha_bar.sqrt() * known + (1 - alpha_bar).sqrt() * _noise(known, generator)

        for step, timestep in enumerate(timesteps):
            x_0 = self._estimate(x_t, timestep, told)
            x_0 = self.operator.project(x_0, y) if project is None else project((x_0 + 1) / 2) * 2 - 1  # eq. 9
            if callback is not None:
                changed = callback(step, timestep, (x_0 + 1) / 2)
                x_0 = x_0 if changed is None else changed * 2 - 1
            if step + 1 == len(timesteps):
                break
            # DDIM: keep the noise that the estimate implies, except for the part that eta replaces with new noise
            alpha_bar, alpha_next = (self.denoiser.alpha_bar(t) for t in (timestep, timesteps[step + 1]))
            noise = (x_t - alpha_bar.sqrt() * x_0) / (1 - alpha_bar).sqrt()
            sigma = eta * ((1 - alpha_next) / (1 - alpha_bar) * (1 - alpha_bar / alpha_next)).sqrt()
            x_t = alpha_next.sqrt() * x_0 + (1 - alpha_next - sigma**2).sqrt() * noise
            if eta > 0:
                x_t = x_t + sigma * _noise(x_t, generator)
        return (x_0 + 1) / 2

    def check(self, num_inference_steps: int, eta: float, start: float) -> None:
        """Raise the ValueError that a call with these settings raises."""
        if not 0.0 <= eta <= 1.0:
            raise ValueError(f"eta must lie in [0, 1], got {eta}")
        if not 0.0 < start <= 1.0:
            raise ValueError(f"start must lie in (0, 1], got {start}")
        most = self._first(start)
        if not isinstance(num_inference_steps, int) or not 0 <= num_inference_steps <= most:
            raise ValueError(f"num_inference_steps must be a whole number in 0 … {most}, got {num_inference_steps!r}")

    def _first(self, start: float) -> int:
        return max(round(start * len(self.denoiser.alphas_cumprod)), 1)

    def timesteps(self, num_inference_steps: int, start: float = 1.0) -> list[int]:
        """The visited timesteps, highest first. They are evenly spaced; the first one is where `start` says."""
        first = self._first(start)
        return [first - 1 - i * first // num_inference_steps for i in range(num_inference_steps)]

    def _estimate(self, x_t: Tensor, timestep: int, known: Tensor) -> Tensor:
        height, width = x_t.shape[-2:]
        largest = min(self.window, self.denoiser.window)
        if height <= largest and width <= largest:
            return self._windowed(x_t, timestep, known)
        # The group norms of all windows share statistics, measured on one small sample of the picture. Otherwise the
        # output for a window would depend on where the window lies.
        sample_x_t, sample_known = (sampled(t, self.denoiser.window, self.denoiser.multiple) for t in (x_t, known))
        with SharedStatistics() as shared:
            self.denoiser(self._padded(sample_x_t), timestep, self._padded(sample_known))
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
        """`x` extended by reflection to a size that the network accepts."""
        multiple = self.denoiser.multiple
        height, width = (-(-max(self.smallest, n) // multiple) * multiple for n in x.shape[-2:])
        return reflect_pad(x, height, width)


def make_enhancer(
    unet: UNet2DModel,
    scheduler: SchedulerMixin,
    operator: Operator,
    *,
    window: int | None = None,
    smallest: int | None = None,
    window_mode: WindowMode = "blend",
) -> DetailEnhancer:
    """Build the enhancer from a prior and the noise schedule that it was trained on. All callers use this function.

    Args:
        window: side of its windows in HR pixels; by default `Denoiser.window`.
        smallest: smaller images are extended to this many pixels along a side; by default to the size that the prior
            was trained on, at most to the window.

    Raises:
        ValueError: for a scheduler without `alphas_cumprod`, and as `Denoiser` and `DetailEnhancer` do.
    """
    schedule = getattr(scheduler, "alphas_cumprod", None)
    if schedule is None:
        raise ValueError(
            f"the scheduler must have a discrete noise schedule (alphas_cumprod), {type(scheduler).__name__} has none"
        )
    denoiser = Denoiser(unet, schedule, scheduler.config.prediction_type)
    window = window or denoiser.window
    return DetailEnhancer(
        denoiser,
        operator,
        window=window,
        smallest=min(denoiser.trained, window) if smallest is None else smallest,
        window_batch=max(1, 4 * denoiser.trained**2 // window**2),
        window_mode=window_mode,
    )


def _noise(like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Noise shaped like `like`, drawn on the generator's device: a CPU generator gives the same image on every
    device."""
    device = generator.device if generator is not None else torch.device("cpu")
    return torch.randn(like.shape, generator=generator, device=device).to(like)
