"""One call of the pipeline, described by files and settings, so that it can be made again with the same bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from def_hub.hub.fetch import origin
from def_hub.observation.observed import check_degradation
from def_hub.output import DEFOutput
from def_hub.pipeline import EMBEDDED, DEFPipeline
from def_hub.precision import fast_bfloat16
from def_hub.settings import DEFAULT_PRESET, SETTINGS, Choice, Range, Settings, resolve

MAX_STEPS = 50
"""Diffusion steps that one visitor may ask for: more would keep the others waiting."""
MAX_SEED = 2**31 - 1

ALLOWED: dict[str, Range | Choice] = {setting.name: setting.metadata["allowed"] for setting in SETTINGS}
"""What each setting may be. A flag has None."""


@dataclass(frozen=True)
class RunOptions:
    """What a visitor chose beside the pictures.

    settings: those of the preset with the visitor's changes. seed: of all randomness.
    """

    preset: str = DEFAULT_PRESET
    settings: Settings = field(default_factory=resolve)
    seed: int = 0

    @staticmethod
    def of(preset: str = DEFAULT_PRESET, seed: Any = 0, **overrides: Any) -> RunOptions:
        """Check what a visitor sent. An override that is None leaves the preset's value.

        Raises:
            ValueError, TypeError: as `settings.resolve`; also for more than `MAX_STEPS` steps and for a seed that is
                no whole number from 0 to `MAX_SEED`.
        """
        settings = resolve(preset, **overrides)
        check_degradation(settings.degradation)
        steps = settings.num_inference_steps
        if steps > MAX_STEPS:
            raise ValueError(f"num_inference_steps: at most {MAX_STEPS} are computed here, got {steps}")
        if isinstance(seed, bool) or not isinstance(seed, int | float) or seed != int(seed):
            raise ValueError(f"seed: expected a whole number, got {seed}")
        if not 0 <= seed <= MAX_SEED:
            raise ValueError(f"seed must lie in [0, {MAX_SEED}], got {seed}")
        return RunOptions(preset, settings, int(seed))


@dataclass(frozen=True)
class Setup:
    """The machine and the model: with another one the same call may give other bytes.

    model: arguments of `from_pretrained`; none for the embedded default. precision: see `settings.Settings`.
    threads: a sum is split among them, and each split rounds differently.
    """

    model: dict[str, str] = field(default_factory=dict)
    device: str = "cpu"
    precision: str = "float32"
    threads: int = 1

    @staticmethod
    def of(pipeline: DEFPipeline) -> Setup:
        """The setup of this process. Only the last part of a local folder's path is told."""
        folder = str(getattr(pipeline, "name_or_path", None) or "MODEL")
        model = {} if folder == str(EMBEDDED) else origin(folder) or {"name": Path(folder).name}
        precision = "bfloat16" if fast_bfloat16(pipeline.device) else "float32"
        return Setup(model, pipeline.device.type, precision, torch.get_num_threads())

    @property
    def name(self) -> str:
        return self.model.get("name", "embedded default")


@dataclass(frozen=True)
class Call:
    """The arguments of one call. `folder` holds the inputs: `photo`, `references` and masks are names of its files."""

    folder: Path
    photo: str
    references: tuple[str, ...] = ()
    options: RunOptions = field(default_factory=RunOptions)
    mask: str | None = None
    reference_masks: tuple[str | None, ...] = ()

    @property
    def parameters(self) -> dict[str, Any]:
        """The preset and every setting, as keyword arguments of the pipeline."""
        return {"preset": self.options.preset, **self.options.settings.as_dict()}

    def make(self, pipeline: DEFPipeline, **more: Any) -> DEFOutput:
        """Make the call. more: arguments that do not change the result, such as callbacks."""

        def at(name: str | None) -> Path | None:
            return None if name is None else self.folder / name

        references = [self.folder / name for name in self.references] or None
        masks: dict[str, Any] = {"mask": at(self.mask)}
        if any(self.reference_masks):
            masks["reference_mask"] = [at(name) for name in self.reference_masks]
        generator = torch.Generator().manual_seed(self.options.seed)
        return pipeline(self.folder / self.photo, references, generator=generator, **self.parameters, **masks, **more)

    def as_python(self, setup: Setup) -> str:
        """A script that makes the same call when it is run in `folder`.

        Nothing in it is free text of a visitor: names of files are ours, numbers and choices were checked.
        """
        model = ", ".join(repr(v) if k == "name" else f"{k}={v!r}" for k, v in setup.model.items())
        pictures = [self.photo, list(self.references)] if self.references else [self.photo]
        keywords: dict[str, Any] = self.parameters | {"precision": setup.precision}
        if self.mask:
            keywords["mask"] = self.mask
        if any(self.reference_masks):
            keywords["reference_mask"] = list(self.reference_masks)
        lines = [
            "import torch",
            "",
            "from def_hub import DEFPipeline",
            "",
            f"torch.set_num_threads({setup.threads})",
            f"pipe = DEFPipeline.from_pretrained({model}).to({setup.device!r})",
            "result = pipe(",
            *(f"    {picture!r}," for picture in pictures),
            *(f"    {name}={value!r}," for name, value in keywords.items()),
            f"    generator=torch.Generator().manual_seed({self.options.seed}),",
            ")",
            'result.images[0].save("result.png")',
            "",
        ]
        return "\n".join(lines)
