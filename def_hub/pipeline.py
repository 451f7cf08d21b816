"""DEFPipeline: image + references in, `DEFOutput` out; the figure of the paper as numbered steps."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import PIL.Image
import torch
from diffusers import DiffusionPipeline, SchedulerMixin, UNet2DModel
from diffusers.utils import BaseOutput
from torch import Tensor

from def_hub.diffusion.enhancer import make_enhancer
from def_hub.hub import fetch
from def_hub.hub.tidy import components_of, tidy
from def_hub.images import ImageLike, to_pil
from def_hub.inputs import Masks, References, requests_of
from def_hub.loading import COMPONENTS, check_options, check_whole
from def_hub.observation.downsample import Downsample, agreeing
from def_hub.precision import compute_in, float32_by_default
from def_hub.provenance import provenance_shares
from def_hub.reference.matcher import Matcher
from def_hub.reference.matching import Correspondence, Views
from def_hub.reference.matching.fitting import fitted
from def_hub.reference.network import Estimate, ReferenceNetwork
from def_hub.reference.picture import ReferencePicture
from def_hub.reference.restoring.transfer import spread
from def_hub.scales import in_two_passes, operator_between, reduced, size_between, target_size
from def_hub.settings import DEFAULT_PRESET, Settings, resolve

EMBEDDED = Path(__file__).parent / "weights" / "def-mini"
LOAD_WITH = [
    "def_hub: `from def_hub import DEFPipeline; DEFPipeline.from_pretrained(...)`, not DiffusionPipeline; pipeline"
]
"""Written first into model_index.json. `DiffusionPipeline.from_pretrained("user/model")` does not know our classes, and
complains about the first entry that it cannot resolve, as `<key>/<module>.py`: so that shall be one which says what to
do. Of a folder it only asks the class; there the class's name says whose it is, see `save_pretrained`."""

Picture = PIL.Image.Image | np.ndarray | Tensor
Stage = Literal["enhance", "match", "transfer", "restore"]
StepEnd = Callable[["DEFPipeline", int, int, dict[str, Tensor]], dict[str, Tensor] | None]


@dataclass
class DEFOutput(BaseOutput):
    """What a call returns: lists with one entry per image. Pictures are in the form that `output_type` names.

    images: the results, 4h×4w.
    enhanced: I_DE, what the diffusion made of the image alone.
    confidence: `[h, w]` in [0, 1], how far each LR pixel's match is trusted; zeros without references.
    correspondence: `[3, h, w]`: number of the reference (-1: none), x, y in its pixels.
    transferred: the reference texture that was laid under the image; None without references.
    provenance: `[2 + K, 4h, 4w]` shares that sum to one: from the input, from the priors, from reference 1 … K.
    consistency_error: largest deviation from the input, in 1/255, of the 8-bit result shrunk again.
    """

    images: list[Any]
    enhanced: list[Any]
    confidence: list[Tensor]
    correspondence: list[Tensor]
    transferred: list[Any]
    provenance: list[Tensor]
    consistency_error: list[float]


class DEFPipeline(DiffusionPipeline):
    """Reference-based ×4 super-resolution with a detail-enhancing diffusion prior.

    Args:
        unet: any `UNet2DModel` that `Denoiser` understands: unconditional, or conditioned on `A†y`.
        scheduler: any scheduler with `alphas_cumprod` and a `prediction_type`; only its noise schedule is used.
        refsr: the Ref-SR network. refsr_detail: weights of the same kind trained for sharpness, used by the preset
            "detail".
        operator: the degradation that made the input: "bicubic" (Pillow), "box" or "matlab".
        window: side in HR pixels of the windows that the prior sees at a time; by default the size it was trained on,
            and p times that for a prior with p×p pixels folded into channels, which then costs no more.
    """

    model_cpu_offload_seq = "unet->refsr->refsr_detail"
    _optional_components = ["refsr_detail"]

    def __init__(
        self,
        unet: UNet2DModel,
        scheduler: SchedulerMixin,
        refsr: ReferenceNetwork,
        refsr_detail: ReferenceNetwork | None = None,
        operator: str = "bicubic",
        window: int | None = None,
    ) -> None:
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler, refsr=refsr, refsr_detail=refsr_detail)
        self.register_to_config(operator=operator, window=window, _load_with=LOAD_WITH)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any = None, **kwargs: Any) -> DEFPipeline:
        """Load a pipeline from a folder, from the Hub by name, or, without an argument, the embedded default.

        Takes the keywords of `DiffusionPipeline.from_pretrained` (`revision`, `variant`, `token`, `device_map`, …),
        `subfolder`, and components to use instead of the stored ones, which are then not fetched: a `unet` of the Hub
        together with its `scheduler`, say. Weights are read from safetensors only.

        Raises:
            TypeError: for an unknown keyword, or a component that is none of its kind.
            ValueError, OSError: see `def_hub.hub.fetch.locate`; ValueError also where weights lack a tensor.
        """
        name = EMBEDDED if pretrained_model_name_or_path is None else pretrained_model_name_or_path
        if not kwargs.pop("use_safetensors", True) or kwargs.pop("use_flashpack", False):
            raise ValueError(
                "use_safetensors=False: weights are read from safetensors only, unpickling can run any code"
            )
        brought = check_options(kwargs, cls._optional_components)
        where = {k: kwargs.pop(k) for k in fetch.OPTIONS if k in kwargs}
        folder = fetch.locate(name, variant=kwargs.get("variant"), without=brought, **where)
        pipe = super().from_pretrained(str(folder), use_safetensors=True, **kwargs)
        if kwargs.get("device_map") is None:  # else tensors may well be elsewhere
            for part in set(COMPONENTS) - set(brought):
                check_whole(str(name), part, getattr(pipe, part))
            pipe.unet.to(memory_format=torch.channels_last)  # as its inputs: a seventh faster in bfloat16
        return pipe

    @classmethod
    def download(cls, pretrained_model_name: str, **kwargs: Any) -> str:
        """Fetch a repository of the Hub; returns the folder. Keywords and errors as `def_hub.hub.fetch.locate`."""
        return str(fetch.locate(pretrained_model_name, **kwargs))

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Write a folder that `from_pretrained` loads, without the path that the parts came from, and without what a
        pipeline that was saved there before had and this one has not.

        Takes the keywords of `DiffusionPipeline.save_pretrained`, but for publishing, which is `push_to_hub`'s.
        """
        if push_to_hub:
            raise ValueError("save_pretrained(push_to_hub=True): use push_to_hub(name), which checks what it publishes")
        former = components_of(save_directory)
        super().save_pretrained(str(save_directory), **kwargs)
        tidy(save_directory, former, kwargs.get("variant"))
        index = Path(save_directory) / "model_index.json"
        for config in (*Path(save_directory).glob("*/config.json"), index):
            kept = {k: v for k, v in json.loads(config.read_text()).items() if k != "_name_or_path"}
            if config == index:  # all that `DiffusionPipeline` says about a folder that it cannot load is this name
                kept["_class_name"] = f"{type(self).__module__.split('.')[0]}.{type(self).__name__}"
            config.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")

    def push_to_hub(
        self,
        repo_id: str,
        *,
        card: str | Path | None = None,
        license: str = "unknown",
        base_model: str | None = None,
        private: bool | None = None,
        create_pr: bool = False,
        revision: str | None = None,
        max_shard_size: int | str | None = None,
        commit_message: str | None = None,
        token: str | None = None,
    ) -> str:
        """Publish the pipeline as it is, checked as `def-hub publish` does; returns the address.

        Args:
            card, license, base_model: see `def_hub.hub.publish.prepare`.
            private, create_pr, revision: see `def_hub.hub.publish.plan`.
            max_shard_size: split larger weights, e.g. "5GB".

        Raises:
            ValueError, OSError: see `def_hub.hub.publish.prepare` and `carry_out`.
        """
        from def_hub.hub.publish import carry_out, check_name, prepare

        check_name(repo_id)
        where = {"private": private, "create_pr": create_pr, "revision": revision, "token": token}
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, max_shard_size=max_shard_size)
            load = type(self).from_pretrained
            plan = prepare(folder, repo_id, load=load, card=card, license=license, base_model=base_model, **where)
            return carry_out(plan, message=commit_message, token=token)

    def parts(self, preset: str = "balanced") -> dict[str, Any]:
        """The networks that a preset computes with: "unet" and "refsr", which for "detail" has weights of its own where
        the checkpoint has them. Raises ValueError for an unknown preset."""
        return {"unet": self.unet, "refsr": self._network(resolve(preset))}

    @torch.no_grad()
    @float32_by_default()
    def __call__(
        self,
        image: ImageLike | Sequence[ImageLike],
        reference: References = None,
        preset: str = DEFAULT_PRESET,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        mask: Masks = None,
        reference_mask: Masks = None,
        size: tuple[int | None, int | None] | None = None,
        output_type: Literal["pil", "np", "pt"] = "pil",
        callback_on_step_end: StepEnd | None = None,
        callback_on_stage: Callable[[DEFPipeline, Stage], object] | None = None,
        return_dict: bool = True,
        **overrides: Any,
    ) -> DEFOutput:
        """Enlarge `image` with the help of `reference`, four times where nothing else is asked for.

        Args:
            image: a path, Pillow image, array or tensor from 8×8 pixels up, or several (see
                `def_hub.images.to_tensor`).
            reference: nothing, one or several sharp photographs of any size; for several images, also one list (or
                None) for each.
            preset: "fast", "balanced" (faithful) or "detail" (sharp to the eye); see `def_hub.settings.PRESETS`.
            generator: source of all randomness, or one for each image; the same one gives the same bytes. Without it,
                results follow `torch.manual_seed`.
            mask: a picture of the image's size, white where the references may be used, black where they may not; for
                several images a list with one, or None, for each.
            reference_mask: the same for a reference: white is what may be used of it; for several references a list
                with one, or None, for each, in lists where the references are.
            size: (width, height) of the results instead of the setting `scale`; one of them may be None. From the
                image's own size to ×8; beyond ×4 the networks run twice.
            output_type: Pillow images, arrays `[H, W, 3]` or tensors `[3, H, W]`, the latter two float in [0, 1].
            callback_on_step_end: called as `(pipe, step, timestep, {"x0": [1, 3, H, W] in [0, 1]})` after each step
                of the diffusion of an image; a returned dictionary with "x0" replaces the estimate.
            callback_on_stage: called as `(pipe, stage)` when "enhance", "match" (where there are references),
                "transfer" and "restore" begin for an image. What either callback raises ends the call.
            return_dict: return a `DEFOutput` instead of a tuple.
            overrides: any field of `def_hub.settings.Settings`, instead of the preset's: `num_inference_steps`, `eta`,
                `reference_strength`, `matching_image`, `refine`, `consistency`, `precision` …

        Raises:
            ValueError, TypeError: for an argument outside what is said above, before anything is computed.
        """
        settings = resolve(preset, **overrides)
        _check_call(output_type, callback_on_step_end, callback_on_stage)
        requests = requests_of(image, reference, mask, reference_mask)
        targets = [target_size(request.size, settings.scale, size) for request in requests]
        generators = _generators(generator, len(requests))
        network, operator = self._network(settings), Downsample(self.config.operator)
        enhancer = make_enhancer(
            self.unet, self.scheduler, operator, window=self.config.window, window_mode=settings.window_mode
        )
        diffusion: dict[str, Any] = {name: getattr(settings, name) for name in ("num_inference_steps", "eta", "start")}
        enhancer.check(**diffusion)
        device = self._execution_device
        enhance: Callable[..., Tensor] = partial(enhancer, **diffusion)
        precision = compute_in(settings.precision, device, network.dtype)
        results: list[dict[str, Any]] = []
        with self.progress_bar(total=settings.num_inference_steps * len(requests)) as bar:
            watch = _Watch(self, bar, callback_on_step_end, callback_on_stage)
            for request, target, draws in zip(requests, targets, generators, strict=True):
                if size_between(request.size, target):
                    again = {"generator": draws, "callback_on_stage": callback_on_stage, **settings.as_dict()}
                    again["callback_on_step_end"] = callback_on_step_end
                    results.append(in_two_passes(self, request, target, kernel=operator.kernel, **again))
                    continue
                y = request.image.to(device)  # [1,3,h,w]
                references = request.references if settings.reference_strength > 0 else ()
                with precision:
                    # 1. Enhance (4.2): the diffusion prior, held to the input
                    watch.begins("enhance")
                    enhanced = enhance(y, generator=draws, callback=watch.step).clamp(0, 1)  # [1,3,H,W]

                    # 2. Estimate: what the network makes of the image alone
                    estimate = network.estimate(y, enhanced, settings.turns)

                    # 3. See each reference as large as the image shows things, degraded and enhanced in the same way
                    watch.begins("match" if references else "transfer")
                    seen = [self._see(r.to(device), y, enhance, network, settings.refine) for r in references]

                    # 4. Match (4.3, eq. 10-12)
                    matches, features = None, network.memory(device)
                    if seen:
                        matcher = Matcher(features, settings.matching_image, settings.refine, settings.step)
                        matches = matcher(Views(operator.upsample(y), estimate.matched), [p.seen for p in seen])
                        matches = matches.trusted(settings.reference_strength * request.allowed.to(device))
                        seen = [picture.without_views() for picture in seen]
                        watch.begins("transfer")

                    # 5. Restore (4.4, eq. 7, 13): texture carried over by the matches and blended in; where no
                    #    reference is trusted, the prior's own detail stays
                    restored = network.restored(y, estimate, [p.pixels for p in seen], matches, features)
                result, alone = _with_prior_detail(restored.sr, estimate, matches, settings.prior_strength)

                # 6. Agree: the nearest picture of the size asked for that shrinks back to the input (eq. 9)
                watch.begins("restore")
                shrinks = operator_between(operator, target, request.size)
                result, error = agreeing(shrinks, reduced(result, target), y, settings.consistency)

                # 7. Explain: what came from where
                results.append(
                    {
                        "images": result,
                        "enhanced": reduced(enhanced, target),
                        "confidence": _confidence(matches, y),
                        "correspondence": _correspondence(matches, y, seen),
                        "transferred": reduced(restored.transferred, target),
                        "provenance": provenance_shares(shrinks, y, reduced(alone, target), result, matches, len(seen)),
                        "consistency_error": 255 * error,
                    }
                )
        self.maybe_free_model_hooks()
        output = _output(results, output_type)
        return output if return_dict else output.to_tuple()

    def _network(self, settings: Settings) -> ReferenceNetwork:
        """The weights that restore; a checkpoint without weights of their own for a preset has one set for all."""
        network = getattr(self, settings.refsr, None)
        return self.refsr if network is None else network

    def _see(
        self,
        reference: ReferencePicture,
        y: Tensor,
        enhance: Callable[..., Tensor],
        network: ReferenceNetwork,
        refine: bool,
    ) -> ReferencePicture:
        """The reference with its views: degraded and enhanced as the image was, so that like is compared with like."""
        picture = fitted(y, reference, network.feature_extractor) if refine else reference
        operator = Downsample(self.config.operator)
        small = operator.forward(picture.pixels).clamp(0, 1)
        # its own generator: what a reference draws must not change what the image draws
        enhanced = enhance(small, generator=torch.Generator().manual_seed(0)).clamp(0, 1)
        return picture.seen_as(operator.upsample(small), network.estimate(small, enhanced).matched)


@dataclass
class _Watch:
    """Tells the caller how far a call is."""

    pipe: DEFPipeline
    bar: Any
    on_step: StepEnd | None
    on_stage: Callable[[DEFPipeline, Stage], object] | None

    def begins(self, stage: Stage) -> None:
        if self.on_stage is not None:
            self.on_stage(self.pipe, stage)

    def step(self, step: int, timestep: int, x_0: Tensor) -> Tensor | None:
        """After a step of the diffusion; what the caller returns as "x0" replaces the estimate."""
        self.bar.update()
        changed = None if self.on_step is None else self.on_step(self.pipe, step, timestep, {"x0": x_0})
        if changed is None:
            return None
        if not isinstance(changed, dict):
            raise TypeError(f"callback_on_step_end: expected a dictionary or None back, got {type(changed).__name__}")
        return changed.get("x0")


def _with_prior_detail(
    sr: Tensor, estimate: Estimate, matches: Correspondence | None, strength: float
) -> tuple[Tensor, Tensor]:
    """The results with and without references, with a share of the prior's own detail where none is trusted."""
    trust = 0.0 if matches is None else spread(matches.confidence, 1)
    result, alone = sr.float(), estimate.mean.float()
    result = result + strength * (1 - trust) * (estimate.enhanced - result)
    return result, alone + strength * (estimate.enhanced - alone)


def _check_call(output_type: str, *callbacks: object) -> None:
    if output_type not in ("pil", "np", "pt"):
        raise ValueError(f"output_type must be 'pil', 'np' or 'pt', got {output_type!r}")
    for name, callback in zip(("callback_on_step_end", "callback_on_stage"), callbacks, strict=True):
        if callback is not None and not callable(callback):
            raise TypeError(f"{name}: expected a function, got {type(callback).__name__}")


def _generators(generator: Any, count: int) -> list[torch.Generator]:
    """One source of randomness for each of `count` images; one for all is the same object."""
    if generator is None:  # drawn from the caller's state, which goes on and is not reseeded
        seed = int(torch.randint(2**63 - 1, (), dtype=torch.int64))
        return [torch.Generator().manual_seed(seed)] * count
    given = list(generator) if isinstance(generator, list | tuple) else [generator] * count
    for one in given:
        if not isinstance(one, torch.Generator):
            raise TypeError(f"generator: expected a torch.Generator or a list of them, got {type(one).__name__}")
    if len(given) != count:
        raise ValueError(f"generator: expected one for each of {count} images, got {len(given)}")
    return given


def _output(results: list[dict[str, Any]], output_type: str) -> DEFOutput:
    """Lists with one entry for each image, pictures in the form that the caller asked for."""
    for result in results:
        result |= {name: _picture(result[name], output_type) for name in ("images", "enhanced", "transferred")}
    return DEFOutput(**{name: [result[name] for result in results] for name in DEFOutput.__dataclass_fields__})


def _picture(x: Tensor | None, output_type: str) -> Picture | None:
    """`[1, 3, H, W]` as a Pillow image, an array or a tensor."""
    if x is None:
        return None
    if output_type == "pil":
        return to_pil(x)
    x = x[0].clamp(0, 1).cpu()
    return x if output_type == "pt" else x.permute(1, 2, 0).numpy()


def _confidence(matches: Correspondence | None, y: Tensor) -> Tensor:
    return torch.zeros(y.shape[-2:]) if matches is None else matches.confidence[0, 0].cpu()


def _correspondence(matches: Correspondence | None, y: Tensor, seen: Sequence[ReferencePicture]) -> Tensor:
    if matches is None:
        return torch.full((3, *y.shape[-2:]), -1.0)
    reference, position = matches.reference[0], matches.position[0]
    for number, picture in enumerate(seen):
        position = torch.where(reference == number, picture.original(position), position)
    return torch.cat((reference[None].float(), position)).cpu()
