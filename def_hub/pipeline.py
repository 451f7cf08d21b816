"""DEFPipeline: image + references in, `DEFOutput` out; the figure of the paper as numbered steps."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import PIL.Image
import torch
from diffusers import DiffusionPipeline, SchedulerMixin, UNet2DModel
from diffusers.utils import BaseOutput
from torch import Tensor

from def_hub.diffusion.denoiser import Denoiser
from def_hub.diffusion.enhancer import DetailEnhancer
from def_hub.hub import fetch
from def_hub.hub.tidy import components_of, tidy
from def_hub.images import ImageLike, to_pil
from def_hub.inputs import Masks, References, requests_of
from def_hub.loading import COMPONENTS, check_options, check_whole
from def_hub.observation.downsample import Downsample, consistency_error, project_clipped
from def_hub.precision import compute_in
from def_hub.provenance import provenance_shares
from def_hub.reference.fitting import Fitted
from def_hub.reference.matching import Correspondence, Views
from def_hub.reference.network import ReferenceNetwork
from def_hub.reference.transfer import spread
from def_hub.settings import DEFAULT_PRESET, WindowMode, resolve

EMBEDDED = Path(__file__).parent / "weights" / "def-mini"
LOAD_WITH = [
    "def_hub: `from def_hub import DEFPipeline; DEFPipeline.from_pretrained(...)`, not DiffusionPipeline; pipeline"
]
"""Written first into model_index.json. `DiffusionPipeline.from_pretrained("user/model")` does not know our classes, and
complains about the first entry that it cannot resolve, as `<key>/<module>.py`: so that shall be one which says what to
do. Of a folder it only asks the class; there the class's name says whose it is, see `save_pretrained`."""

Picture = PIL.Image.Image | np.ndarray | Tensor
Stage = Literal["enhance", "match", "transfer", "restore"]


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
        operator: the degradation that made the input: "bicubic" (Pillow), "box" or "matlab"; that of `refsr`, too.
        window: side in HR pixels of the windows that the prior sees at a time; by default the size it was trained on,
            and p times that for a prior with p×p pixels folded into channels, which then costs no more.

    Raises:
        ValueError: where a network was made for another operator.
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
        for name, network in (("refsr", refsr), ("refsr_detail", refsr_detail)):
            if network is not None and network.config.operator != operator:
                raise ValueError(
                    f"operator: {name} was made for {network.config.operator!r}, the pipeline is to use {operator!r}"
                )
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
            card, license, base_model: see `def_hub.hub.publish.prepare`; `base_model` is by default the repository that
                the pipeline was loaded from.
            private, create_pr, revision: see `def_hub.hub.publish.plan`.
            max_shard_size: split larger weights, e.g. "5GB".

        Raises:
            ValueError, OSError: see `def_hub.hub.publish.prepare` and `carry_out`.
        """
        from def_hub.hub.publish import carry_out, check_name, prepare

        check_name(repo_id)
        loaded_from = fetch.origin(self.config.get("_name_or_path") or "").get("name")
        base_model = base_model or (loaded_from if loaded_from != repo_id else None)
        where = {"private": private, "create_pr": create_pr, "revision": revision, "token": token}
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder, max_shard_size=max_shard_size)
            load = type(self).from_pretrained
            plan = prepare(folder, repo_id, load=load, card=card, license=license, base_model=base_model, **where)
            return carry_out(plan, message=commit_message, token=token)

    def parts(self, preset: str = "balanced") -> dict[str, Any]:
        """The networks that a preset computes with: "unet" and "refsr", which for "detail" has weights of its own where
        the checkpoint has them. Raises ValueError for an unknown preset."""
        return {"unet": self.unet, "refsr": getattr(self, resolve(preset).refsr, None) or self.refsr}

    @torch.no_grad()
    def __call__(
        self,
        image: ImageLike | Sequence[ImageLike],
        reference: References = None,
        preset: str = DEFAULT_PRESET,
        generator: torch.Generator | None = None,
        mask: Masks = None,
        reference_mask: Masks = None,
        output_type: Literal["pil", "np", "pt"] = "pil",
        callback_on_step_end: Callable[[DEFPipeline, int, int, dict[str, Tensor]], dict[str, Tensor] | None]
        | None = None,
        callback_on_stage: Callable[[DEFPipeline, Stage], object] | None = None,
        return_dict: bool = True,
        **overrides: Any,
    ) -> DEFOutput:
        """Enlarge `image` four times with the help of `reference`.

        Args:
            image: a path, Pillow image, array or tensor from 8×8 pixels up, or several (see
                `def_hub.images.to_tensor`).
            reference: nothing, one or several sharp photographs of any size; for several images, also one list for
                each.
            preset: "fast", "balanced" (faithful) or "detail" (sharp to the eye); the other arguments override it.
            num_inference_steps: evaluations of the prior, 1 … 1000. eta: fresh noise per step, 0 … 1.
            generator: source of all randomness; the same one gives the same bytes.
            reference_strength: 0 (ignore the references) … 1.
            mask: a picture of the image's size, white where the references may lend, black where the image is to be
                left to itself; for several images a list with one, or None, for each.
            reference_mask: the same for a reference: white is what may be used of it; for several references a list
                with one, or None, for each, in lists where the references are.
            matching_image: what is compared with the references; "joint" but for the preset "fast".
            refine: bring the references to the scale of the image (`reference.fitting`), and look for matches to a
                fraction of an HR pixel.
            consistency: project the result onto the images that shrink back to the input.
            window_mode: "blend", or "replace" as in the paper's section 4.2.
            precision: what the networks compute in: "float32", "bfloat16", or "auto", which is bfloat16 where the
                processor is made for it. Places, projections and the result itself are float32 always.
            output_type: Pillow images, arrays `[H, W, 3]` or tensors `[3, H, W]`, the latter two float in [0, 1].
            callback_on_step_end: called as `(pipe, step, timestep, {"x0": [1, 3, H, W] in [0, 1]})` after each step
                of the diffusion of an image; a returned "x0" replaces the estimate.
            callback_on_stage: called as `(pipe, stage)` when "enhance", "match" (where there are references),
                "transfer" and "restore" begin for an image. What either callback raises ends the call.
            return_dict: return a `DEFOutput` instead of a tuple.

        Raises:
            ValueError, TypeError: for an argument outside what is said above, before anything is computed.
        """
        # 0. At the door
        settings = resolve(preset, **overrides)
        _check(output_type)
        requests = requests_of(image, reference, mask, reference_mask)
        device = self._execution_device
        generator = generator if generator is not None else torch.Generator().manual_seed(torch.seed())
        operator = Downsample(self.config.operator)
        enhancer = self._enhancer(operator, settings.window_mode)
        enhancer.check(settings.num_inference_steps, settings.eta, settings.start)
        refsr = getattr(self, settings.refsr, None) or self.refsr
        half = compute_in(settings.precision, device, refsr.dtype)
        diffuse: dict[str, Any] = {name: getattr(settings, name) for name in ("num_inference_steps", "eta", "start")}

        def begins(stage: Stage) -> None:
            if callback_on_stage is not None:
                callback_on_stage(self, stage)

        results: dict[str, list[Any]] = {name: [] for name in DEFOutput.__dataclass_fields__}
        with self.progress_bar(total=settings.num_inference_steps * len(requests)) as bar:
            for request in requests:
                y = request.image.to(device)  # [1,3,h,w]
                references = [r.to(device) for r in request.references] if settings.reference_strength > 0 else []
                allowed = 1.0 if request.allowed is None else request.allowed.to(device)  # [1,1,h,w]

                # 1. Detail enhancement (4.2): the diffusion prior, held to the input
                begins("enhance")

                def on_step(step: int, timestep: int, x_0: Tensor) -> Tensor | None:
                    bar.update()  # noqa: B023  (called before the next turn of the loop)
                    if callback_on_step_end is None:
                        return None
                    changed = callback_on_step_end(self, step, timestep, {"x0": x_0})
                    return (changed or {}).get("x0")

                with half:
                    enhanced = enhancer(y, **diffuse, generator=generator, callback=on_step).clamp(0, 1)  # [1,3,H,W]
                    views = Views(operator.upsample(y), enhanced)

                    # 2. The references, as large as the image shows things, degraded and enhanced in the same way, so
                    # that like is compared with like
                    begins("match" if references else "transfer")
                    keys = [
                        refsr.fitted(y, r.picture, r.usable) if settings.refine else Fitted(r.picture, r.usable)
                        for r in references
                    ]
                    reference_views = [self._views(enhancer, operator, k, diffuse) for k in keys]

                    def matched(_: Correspondence) -> None:
                        begins("transfer")
                        reference_views.clear()  # noqa: B023  (of large photographs they are a gigabyte)

                    # 3. Features, matching, transfer, aggregation (4.3, 4.4)
                    lent = refsr(
                        y,
                        views,
                        reference_views,
                        matching_image=settings.matching_image,
                        refined=settings.refine,
                        strength=settings.reference_strength * allowed,
                        step=settings.step,
                        turns=settings.turns,
                        on_match=matched,
                    )
                result, alone, found = lent.sr.float(), lent.alone.float(), lent.correspondence
                transferred = lent.transferred

                # 4. Where the reference has nothing to offer, the diffusion detail stays
                trust = spread(found.confidence, 1) if found is not None else 0.0
                result = result + settings.prior_strength * (1 - trust) * (enhanced - result)
                alone = alone + settings.prior_strength * (enhanced - alone)
                del views, lent

                # 5. What is known is restored a last time (eq. 9)
                begins("restore")
                if settings.consistency:
                    result, error = project_clipped(operator, result, y)
                else:
                    result = result.clamp(0, 1)
                    error = consistency_error(operator, result, y)

                # 6. What came from where
                results["images"].append(_picture(result, output_type))
                results["enhanced"].append(_picture(enhanced, output_type))
                results["confidence"].append(_confidence(found, y))
                results["correspondence"].append(_correspondence(found, y, keys))
                results["transferred"].append(None if transferred is None else _picture(transferred, output_type))
                results["provenance"].append(provenance_shares(operator, y, alone, result, found, len(keys)))
                results["consistency_error"].append(255 * error)
        self.maybe_free_model_hooks()
        output = DEFOutput(**results)
        return output if return_dict else output.to_tuple()

    def _enhancer(self, operator: Downsample, window_mode: WindowMode) -> DetailEnhancer:
        schedule = getattr(self.scheduler, "alphas_cumprod", None)
        if schedule is None:
            raise ValueError(
                "the scheduler must have a discrete noise schedule (alphas_cumprod), "
                f"{type(self.scheduler).__name__} has none"
            )
        denoiser = Denoiser(self.unet, schedule, self.scheduler.config.prediction_type)
        window = self.config.window or denoiser.window
        return DetailEnhancer(
            denoiser,
            operator,
            window=window,
            smallest=min(denoiser.trained, window),
            window_batch=max(1, 4 * denoiser.trained**2 // window**2),
            window_mode=window_mode,
        )

    @staticmethod
    def _views(enhancer: DetailEnhancer, operator: Downsample, reference: Fitted, diffuse: dict[str, Any]) -> Views:
        small = operator.forward(reference.picture).clamp(0, 1)
        # its own generator: what a reference draws must not change what the image draws
        enhanced = enhancer(small, **diffuse, generator=torch.Generator().manual_seed(0)).clamp(0, 1)
        return Views(operator.upsample(small), enhanced, reference.picture, reference.usable)


def _check(output_type: str) -> None:
    if output_type not in ("pil", "np", "pt"):
        raise ValueError(f"output_type must be 'pil', 'np' or 'pt', got {output_type!r}")


def _picture(x: Tensor, output_type: str) -> Picture:
    """`[1, 3, H, W]` in the form that the caller asked for."""
    if output_type == "pil":
        return to_pil(x)
    x = x[0].clamp(0, 1).cpu()
    return x if output_type == "pt" else x.permute(1, 2, 0).numpy()


def _confidence(found: Correspondence | None, y: Tensor) -> Tensor:
    return torch.zeros(y.shape[-2:]) if found is None else found.confidence[0, 0].cpu()


def _correspondence(found: Correspondence | None, y: Tensor, keys: Sequence[Fitted]) -> Tensor:
    if found is None:
        return torch.full((3, *y.shape[-2:]), -1.0)
    reference, position = found.reference[0], found.position[0]
    for number, key in enumerate(keys):
        position = torch.where(reference == number, key.original(position), position)
    return torch.cat((reference[None].float(), position)).cpu()
