"""DEFPipeline: image + references → `DEFOutput`. The paper's figure as numbered steps."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from diffusers import DiffusionPipeline, SchedulerMixin, UNet2DModel
from torch import Tensor

from def_hub.diffusion.enhancer import DetailEnhancer, StepCallback, make_enhancer
from def_hub.hub import fetch
from def_hub.hub.tidy import components_of, tidy
from def_hub.images import ImageLike
from def_hub.inputs import MaskLike, ReferenceLike, Request, check_call, choices_of, generators_of, requests_of
from def_hub.loading import COMPONENTS, check_options, check_weights, check_whole
from def_hub.observation.degradation import Degradation
from def_hub.observation.downsample import Downsample
from def_hub.observation.observed import Observed, check_degradation, observed
from def_hub.output import DEFOutput, confidence_of, correspondence_of, output_of
from def_hub.precision import compute_in, float32_by_default
from def_hub.provenance import provenance_shares
from def_hub.reference.library import Choice, ReferenceLibrary
from def_hub.reference.matcher import Matcher
from def_hub.reference.matching import Correspondence, Views
from def_hub.reference.matching.detail import believed
from def_hub.reference.matching.fitting import fitted
from def_hub.reference.network import Estimate, ReferenceNetwork
from def_hub.reference.picture import ReferencePicture
from def_hub.reference.restoring.regained import regained
from def_hub.reference.restoring.samples import confirmed, through_samples
from def_hub.reference.restoring.transfer import overlapped, spread
from def_hub.scales import Size, enlarged_alpha, in_two_passes, operator_between, reduced, size_between, target_size
from def_hub.settings import DEFAULT_PRESET, Settings, resolve

EMBEDDED = Path(__file__).parent / "weights" / "def-mini"
LOAD_WITH = [
    "def_hub: `from def_hub import DEFPipeline; DEFPipeline.from_pretrained(...)`, not DiffusionPipeline; pipeline"
]
"""The first entry of model_index.json. `DiffusionPipeline.from_pretrained("user/model")` does not know our classes. Its
error message quotes the first entry that it cannot resolve, and this entry says what to do instead. For a folder the
message quotes only the class name; `save_pretrained` therefore writes it with the name of the package."""

Stage = Literal["enhance", "match", "transfer", "restore"]
StepEnd = Callable[["DEFPipeline", int, int, dict[str, Tensor]], dict[str, Tensor] | None]


class DEFPipeline(DiffusionPipeline):
    """Reference-based ×4 super-resolution with a detail-enhancing diffusion prior.

    Args:
        unet: any `UNet2DModel` that `Denoiser` accepts: unconditional, or conditioned on `A†y`.
        scheduler: any scheduler with `alphas_cumprod` and a `prediction_type`. Only its noise schedule is used.
        refsr: the Ref-SR network.
        refsr_detail: a Ref-SR network trained for sharpness; the preset "detail" uses it.
        operator: the degradation that made the input: "bicubic" (Pillow), "box" or "matlab". The networks were made for
            the same.
        window: side in HR pixels of the windows that the prior sees. By default the size that it was trained on, times
            p for a prior that folds p×p pixels into channels.

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
        """Load a pipeline from a folder or from the Hub by name; without an argument, load the embedded default.

        Takes the keywords of `DiffusionPipeline.from_pretrained` (`revision`, `variant`, `token`, `device_map`, …) and
        `subfolder`. A component passed by keyword (a `unet` with its `scheduler`, for example) replaces the stored one,
        which is then not fetched. Weights are read from safetensors only, and no code of the model is run.

        Raises:
            TypeError: for an unknown keyword, or a component of the wrong class.
            ValueError: for weights that do not fit, and whatever would run code; see also `def_hub.hub.fetch.locate`.
            OSError: see `def_hub.hub.fetch.locate`.
        """
        name = EMBEDDED if pretrained_model_name_or_path is None else pretrained_model_name_or_path
        if not kwargs.pop("use_safetensors", True) or kwargs.pop("use_flashpack", False):
            raise ValueError(
                "use_safetensors=False: weights are read from safetensors only, unpickling can run any code"
            )
        passed = check_options(kwargs, cls._optional_components)
        where = {k: kwargs.pop(k) for k in fetch.OPTIONS if k in kwargs}
        folder = fetch.locate(name, variant=kwargs.get("variant"), without=passed, **where)
        check_weights(folder, str(name), kwargs.get("variant"), passed)
        pipe = super().from_pretrained(str(folder), use_safetensors=True, **kwargs)
        if kwargs.get("device_map") is None:  # with a device map, weights may stay on disk until they are used
            for part in set(COMPONENTS) - set(passed):
                check_whole(str(name), part, getattr(pipe, part))
            pipe.unet.to(memory_format=torch.channels_last)  # the layout of its inputs: a seventh faster in bfloat16
        return pipe

    @classmethod
    def download(cls, pretrained_model_name: str, **kwargs: Any) -> str:
        """Fetch a repository from the Hub and return its folder. Keywords and errors as `def_hub.hub.fetch.locate`."""
        return str(fetch.locate(pretrained_model_name, **kwargs))

    def save_pretrained(self, save_directory: str | Path, push_to_hub: bool = False, **kwargs: Any) -> None:
        """Write a folder that `from_pretrained` loads.

        The folder does not record the paths that the components were loaded from. If another pipeline was saved there
        before, its components that this one lacks are removed. Takes the keywords of
        `DiffusionPipeline.save_pretrained`, except those for publishing.

        Raises:
            ValueError: for `push_to_hub=True`; use the method `push_to_hub`.
        """
        if push_to_hub:
            raise ValueError("save_pretrained(push_to_hub=True): use push_to_hub(name), which checks what it publishes")
        former = components_of(save_directory)
        super().save_pretrained(str(save_directory), **kwargs)
        tidy(save_directory, former, kwargs.get("variant"))
        index = Path(save_directory) / "model_index.json"
        for config in (*Path(save_directory).glob("*/config.json"), index):
            kept = {k: v for k, v in json.loads(config.read_text()).items() if k != "_name_or_path"}
            if config == index:  # the error message of `DiffusionPipeline` quotes this name, see LOAD_WITH
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
        """Publish the pipeline on the Hub, with the checks of `def-hub publish`, and return its address.

        Args:
            card, license, base_model: see `def_hub.hub.publish.prepare`; `base_model` is by default the repository that
                the pipeline was loaded from.
            private, create_pr, revision: see `def_hub.hub.publish.plan`.
            max_shard_size: split larger files of weights, e.g. at "5GB".

        Raises:
            ValueError, OSError: see `def_hub.hub.publish.prepare` and `def_hub.hub.publish.carry_out`.
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
        """The networks that a preset computes with, as "unet" and "refsr". For the preset "detail", "refsr" is
        `refsr_detail` if the checkpoint has it. Raises ValueError for an unknown preset."""
        return {"unet": self.unet, "refsr": self._network(resolve(preset))}

    @torch.no_grad()
    @float32_by_default()
    def __call__(
        self,
        image: ImageLike | Sequence[ImageLike],
        reference: ReferenceLike | ReferenceLibrary = None,
        preset: str = DEFAULT_PRESET,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        mask: MaskLike = None,
        reference_mask: MaskLike = None,
        size: tuple[int | None, int | None] | None = None,
        output_type: Literal["pil", "np", "pt"] = "pil",
        callback_on_step_end: StepEnd | None = None,
        callback_on_stage: Callable[[DEFPipeline, Stage], object] | None = None,
        return_dict: bool = True,
        max_references: int = 3,
        **overrides: Any,
    ) -> DEFOutput:
        """Enlarge `image` with the help of `reference`, four times where nothing else is asked for.

        Args:
            image: a path, Pillow image, array or tensor of at least 8×8 pixels, or a list of these (see
                `def_hub.images.to_tensor`). Transparency is enlarged, too, see `DEFOutput`.
            reference: None, one sharp photograph of any size, or a list of them, each also as a `ReferencePicture` that
                has been fitted. With several images, a flat list serves all of them; a list of lists (or None) gives
                each image its own. A `ReferenceLibrary` finds references for each image.
            preset: "fast", "balanced" (faithful) or "detail" (sharp to the eye); see `def_hub.settings.PRESETS`.
            generator: source of all randomness, or a list with one for each image. The same generator state gives the
                same bytes. Without a generator, results follow `torch.manual_seed`.
            mask: a picture of the image's size: white where references may be used, black where they may not. With
                several images, a list with one mask (or None) for each.
            reference_mask: a picture of the reference's size: white where the reference may be used. With several
                references, a list with one mask (or None) for each, nested like `reference`.
            size: (width, height) of the results, instead of the setting `scale`. One of them may be None. Sizes from
                the image's own to ×8 are possible; beyond ×4 the networks run twice.
            output_type: "pil" for Pillow images, "np" for arrays `[H, W, 3]`, "pt" for tensors `[3, H, W]`. Arrays and
                tensors are float in [0, 1].
            callback_on_step_end: called as `(pipe, step, timestep, {"x0": [1, 3, H, W] in [0, 1]})` after each
                diffusion step of an image. A returned dictionary with "x0" replaces the estimate.
            callback_on_stage: called as `(pipe, stage)` when a stage of an image begins: "enhance", "match" (only with
                references), "transfer", "restore". An exception in either callback ends the call.
            return_dict: return a `DEFOutput`, or else a tuple of its fields.
            max_references: how many a library chooses at most; `choices` of the output names them.
            overrides: any field of `def_hub.settings.Settings`, instead of the preset's: `num_inference_steps`, `eta`,
                `reference_strength`, `matching_image`, `refine`, `consistency`, `precision` …

        Raises:
            TypeError: for an unknown override or an argument of the wrong type, before anything is computed.
            ValueError: for an argument outside its range, before anything is computed.
        """
        settings = _settings(preset, overrides)
        self._plan(settings)  # refused here, before anything is computed
        check_call(output_type, callback_on_step_end, callback_on_stage)
        choices: list[Choice] = []
        if isinstance(reference, ReferenceLibrary):
            choices = choices_of(reference, image, max_references, self.refsr, settings.degradation)
            reference = [choice.pictures() for choice in choices]
        requests = requests_of(image, reference, mask, reference_mask, with_files=settings.degradation != "clean")
        targets = [target_size(request.size, settings.scale, size) for request in requests]
        generators = generators_of(generator, len(requests))
        passes = sum(2 if size_between(r.size, target) else 1 for r, target in zip(requests, targets, strict=True))
        results: list[dict[str, Any]] = []
        with self.progress_bar(total=settings.num_inference_steps * passes) as bar:
            watch = _Watch(self, bar, callback_on_step_end, callback_on_stage)
            for request, target, own_generator in zip(requests, targets, generators, strict=True):
                enlarge = partial(self._enlarge, generator=own_generator, watch=watch)
                if size_between(request.size, target):
                    result = in_two_passes(enlarge, request, target, settings, Downsample(self.config.operator))
                else:
                    result = enlarge(request, target, settings)
                results.append(result | {"alpha": enlarged_alpha(request.alpha, target)})
        self.maybe_free_model_hooks()
        output = output_of(results, choices, output_type)
        return output if return_dict else output.to_tuple()

    def _enlarge(
        self, request: Request, target: Size, settings: Settings, generator: torch.Generator, watch: _Watch
    ) -> dict[str, Any]:
        """One image at (height, width) `target`, in one pass: the entries of `DEFOutput`, pictures `[1, 3, H, W]`."""
        plan = self._plan(settings)
        network, operator, device = plan.network, plan.operator, self._execution_device
        y = request.image.to(device)  # [1,3,h,w]
        known = observed(y, settings.degradation, operator, request.file)
        told = known.seen_by(y, network.config.known)  # [1,3+known,h,w]
        references = request.references if settings.reference_strength > 0 else ()
        with compute_in(settings.precision, device, network.dtype):
            # 1. Enhance (4.2): the diffusion prior, kept consistent with the input
            watch.begins("enhance")
            enhanced = plan.enhanced(y, known, generator, known.project, watch.step)  # [1,3,H,W]

            # 2. Estimate: the network's result without references
            estimate = network.estimate(told, enhanced, settings.turns)

            # 3. See: bring each reference to the image's scale, then degrade and enhance it like the image
            watch.begins("match" if references else "transfer")
            seen = [plan.seen(r.to(device), y, known) for r in references]

            # 4. Match (4.3, eq. 10-12)
            matches, alike, features = None, None, network.memory(device)
            if seen:
                judged = not known.assessment.degradation.blur
                matcher = Matcher(features, settings.matching_image, settings.refine, settings.step, judged)
                matches = matcher(Views(operator.upsample(y), estimate.matched), [p.seen for p in seen])
                matches = matches.trusted(settings.reference_strength * request.allowed.to(device))
                alike = overlapped([p.seen.enhanced for p in seen], matches) if known.lost_more else None
                seen = [picture.without_views() for picture in seen]
                watch.begins("transfer")

            # 5. Restore (4.4, eq. 7, 13): transfer the references' texture along the matches and blend it in; where no
            #    reference is trusted, add detail of the prior; where more was lost than shrinking takes, let references
            #    and samples say more than the network was taught
            restored = network.restored(told, estimate, [p.pixels for p in seen], matches, features)
        result, without_reference = _with_prior_detail(restored.sr, estimate, matches, settings.prior_strength)
        if known.sampled:
            result = confirmed(result, restored.transferred, y, matches, settings.reference_strength)
            without_reference = through_samples(without_reference, y)
        elif alike is not None and matches is not None:
            both, strength = (estimate.matched, alike), settings.reference_strength
            result = regained(result, without_reference, restored.transferred, both, matches, strength)

        # 6. Agree: the nearest image of the requested size that agrees with the file (eq. 9)
        watch.begins("restore")
        shrinks = operator_between(operator, target, request.size)
        result, agreement = known.finish(reduced(result, target), shrinks, settings.consistency)

        # 7. Explain: which detail comes from the input, the priors and each reference
        without_reference = reduced(without_reference, target)
        return {
            "images": result,
            "enhanced": reduced(enhanced, target),
            "confidence": confidence_of(matches, y),
            "correspondence": correspondence_of(matches, y, seen),
            "transferred": reduced(restored.transferred, target),
            "provenance": provenance_shares(shrinks, y, without_reference, result, matches, len(seen)),
            "consistency_error": 255 * agreement.error,
            "observation": known.assessment,
            "agreement": agreement,
        }

    def _network(self, settings: Settings) -> ReferenceNetwork:
        """The Ref-SR network that the settings name; a checkpoint without `refsr_detail` uses `refsr` instead."""
        network = getattr(self, settings.refsr, None)
        return self.refsr if network is None else network

    def _plan(self, settings: Settings) -> _Plan:
        """What a call computes with. Raises ValueError for settings that this checkpoint cannot follow."""
        operator = Downsample(self.config.operator)
        enhancer = make_enhancer(
            self.unet, self.scheduler, operator, window=self.config.window, window_mode=settings.window_mode
        )
        plan = _Plan(settings, self._network(settings), operator, enhancer)
        enhancer.check(**plan.diffusion)
        return plan


@dataclass(frozen=True)
class _Plan:
    """What a call computes with, for every image and reference."""

    settings: Settings
    network: ReferenceNetwork
    operator: Downsample
    enhancer: DetailEnhancer

    @property
    def diffusion(self) -> dict[str, Any]:
        return {name: getattr(self.settings, name) for name in ("num_inference_steps", "eta", "start")}

    def enhanced(
        self,
        y: Tensor,
        known: Observed,
        generator: torch.Generator,
        project: Callable[[Tensor], Tensor] | None = None,
        callback: StepCallback | None = None,
    ) -> Tensor:
        """I_DE of an LR image or a degraded reference, `[1, 3, H, W]` in [0, 1]."""
        told = known.seen_by(y, self.enhancer.denoiser.known)
        enhanced = self.enhancer(told, **self.diffusion, generator=generator, project=project, callback=callback)
        return enhanced.clamp(0, 1)

    def seen(self, reference: ReferencePicture, y: Tensor, known: Observed) -> ReferencePicture:
        """The reference with its views: degraded and enhanced like the image, so that both lost the same detail before
        they are compared."""
        network, operator = self.network, self.operator
        refine = self.settings.refine and not reference.fitted
        picture = fitted(y, reference, network.feature_extractor) if refine else reference
        small = known.degraded(picture.pixels, operator)
        # its own generator: the noise for a reference must not change the noise for the image
        enhanced = self.enhanced(small, known, torch.Generator().manual_seed(0), known.project_beside(small, operator))
        told = known.seen_by(small, network.config.known)
        seen = picture.seen_as(operator.upsample(small), network.estimate(told, enhanced).matched)
        if not network.config.match_estimate:
            return seen
        # what a network makes of a picture alone says how much detail to expect; I_DE does not
        if known.clean:
            return replace(seen, views=believed(seen.seen, operator))
        worth = network.worth(picture.pixels)  # its own detail, whatever the image lost: less would be foreseen
        return replace(seen, views=seen.seen.counting(small.new_tensor([worth])))


@dataclass
class _Watch:
    """Reports the progress of a call: to the progress bar and to the caller's callbacks."""

    pipe: DEFPipeline
    bar: Any
    on_step: StepEnd | None
    on_stage: Callable[[DEFPipeline, Stage], object] | None

    def begins(self, stage: Stage) -> None:
        if self.on_stage is not None:
            self.on_stage(self.pipe, stage)

    def step(self, step: int, timestep: int, x_0: Tensor) -> Tensor | None:
        """Report a diffusion step. Returns the caller's replacement for the estimate `x_0`, if there is one."""
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
    """The results with and without references, blended with the prior's image I_DE where no reference is trusted.

    strength: in [0, 1], the weight of I_DE at confidence 0.
    """
    trust = 0.0 if matches is None else spread(matches.confidence, 1)
    result, without_reference = sr.float(), estimate.mean.float()
    result = result + strength * (1 - trust) * (estimate.enhanced - result)
    return result, without_reference + strength * (estimate.enhanced - without_reference)


def _settings(preset: str, overrides: dict[str, Any]) -> Settings:
    """The settings of a call. Raises ValueError and TypeError for those that cannot be."""
    if isinstance(overrides.get("degradation"), Degradation):
        overrides = overrides | {"degradation": str(overrides["degradation"])}
    settings = resolve(preset, **overrides)
    check_degradation(settings.degradation)
    return settings
