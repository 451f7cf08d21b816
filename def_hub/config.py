"""Dataclasses for a training run; one TOML file; an unknown key is an error."""

from __future__ import annotations

import dataclasses
import tomllib
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

TeacherName = Literal["hitsrf", "rlfn", "rrdb"]


@dataclass(frozen=True)
class SourceConfig:
    """Where training pictures come from.

    kind: "pairs" is the CUFED layout (`input/`, `ref/`, equal file names; or `NNN_0` with its references `NNN_1` …);
    "scenes" is a folder of folders, each with several views of one place; "photos" is a folder of photographs, each of
    which becomes its own reference by crop, warp and photometric change. path: a folder, or a data set on the Hub as
    `hub:user/name` or `hub:user/name:split` (by default its split "train"), streamed once and kept, of which `limit`
    says how many rows are taken. softened: share of the references that are shrunk and enlarged again, as those are
    that show a place smaller (`matching.fitting`). compressed: share of the references that are saved as JPEG. crops:
    fixed crops per photograph, scene, or pair that is larger than a crop. every: only each n-th of the pairs is used.
    weight: share of the samples, relative to the other sources.
    """

    kind: Literal["pairs", "scenes", "photos"]
    path: str
    weight: float = 1.0
    crops: int = 20
    every: int = 1
    softened: float = 0.0
    compressed: float = 0.0
    limit: int | None = None


@dataclass(frozen=True)
class DataConfig:
    """size: side of an HR crop in pixels. unrelated, missing: share of samples whose reference is another scene's,
    or absent; with `missing` 1 the reference part is trained on single images, crops that are drawn anew every time.
    holdout: groups of the pair sources (beginnings of their names) that are kept for validation and never trained on.
    """

    sources: tuple[SourceConfig, ...]
    size: int = 160
    unrelated: float = 0.15
    missing: float = 0.1
    holdout: tuple[str, ...] = ()


@dataclass(frozen=True)
class DegradationConfig:
    """What LR images went through, beside being shrunk; references are degraded in the same way.

    names: degradations as `--degradation` takes them, such as "phone" or "noise6+jpeg60", equally often; empty: the mix
    of `observation.degradation.Degradation.random`, a third of it clean. clean: share that stays clean beside `names`.
    spread: their amounts vary by about this share.
    """

    names: tuple[str, ...] = ()
    clean: float = 0.33
    spread: float = 0.3


@dataclass(frozen=True)
class OptimConfig:
    """Adam (the paper's) or Muon, after a warm-up at a constant or a falling rate.

    batch: samples per step, of all processes together. accumulate: parts that each process computes its share in, one
    after the other, to hold less at once. lr: the rate after the warm-up; final_lr: what a cosine leaves of it at the
    end. schedule: "timed" is a cosine over the minutes that the run is given, for a machine that is lent for so long.
    clip: largest norm of the gradient. average: decay of the averaged weights that are exported. precision: of the
    forward pass; the weights stay float32. workers: processes that make samples beside the training (0: it makes them
    itself); the samples are the same. compiled: the networks that learn are compiled first, which takes a minute.
    """

    steps: int
    optimizer: Literal["adam", "muon"] = "adam"
    batch: int = 9
    accumulate: int = 1
    precision: Literal["no", "bf16", "fp16"] = "no"
    lr: float = 1e-4
    schedule: Literal["cosine", "constant", "timed"] = "cosine"
    final_lr: float = 0.02
    betas: tuple[float, float] = (0.9, 0.999)
    warmup: int = 100
    clip: float = 1.0
    average: float = 0.999
    workers: int = 0
    compiled: bool = False


@dataclass(frozen=True)
class ExtractorConfig:
    """Training of `MiniFeatures`. teacher: safetensors of VGG19 to relu3_1, or none. distill: weight of its term."""

    teacher: str | None = None
    distill: float = 0.0
    temperature: float = 0.05
    positions: int = 256


@dataclass(frozen=True)
class PriorConfig:
    """A `UNet2DModel` and its schedule; the defaults are def-base: the paper's schedule and a 256×256 unconditional
    network. known: as `ReferenceConfig.known`, for a conditioned prior.
    """

    channels: tuple[int, ...] = (128, 128, 256, 256, 512, 512)
    layers: int = 2
    attention: bool = True
    patch: int = 1
    conditioned: bool = False
    groups: int = 32
    window: int = 256
    beta_start: float = 1e-6
    beta_end: float = 1e-2
    prediction: Literal["epsilon", "sample", "v_prediction"] = "epsilon"
    final_share: float = 0.0
    known: int = 0


@dataclass(frozen=True)
class ReferenceConfig:
    """A `ReferenceNetwork`; the defaults are def-base.

    prior: folder, name on the Hub, or "def-mini", with the `unet` and `scheduler` that enhance the training images,
    once, into `cache`; or "bicubic", which enlarges them and enhances nothing. Without one the network is trained to
    enlarge single images, on `A†y`.
    extractor_weights: safetensors of the frozen extractor. enhancer_steps: network evaluations per enhanced image.
    matching_image, refined: as the pipeline's arguments `matching_image` and `refine`. match_once: match every pair
    once, by the network that training starts from, and keep that in `cache`, too. deformable: as
    `ReferenceNetwork`'s.
    perceptual, adversarial: weights of L_per and L_adv beside L_rec (eq. 14; 1e-2 and 1e-4 in the paper), which join
    after `reconstruction_steps`. perceptual_weights: safetensors of a VGG19, see `training.losses.PerceptualLoss`.
    grid: weight of `training.losses.grid_loss`, which joins with them.
    known: how many planes of what is known of the degradation the network is given: the first of
    `observation.degradation.PLANES`, which are 9.
    teacher: safetensors of a network of `evaluation.baselines` whose output for the clean LR image is `teaching` of the
    target (the truth is the rest), less where a reference shows more; teacher_network: which network it is. The outputs
    are computed once into `cache`. On single images only `taught` of the samples are fixed crops with an output. kept:
    where teaching is cheap, as on a GPU, nothing is kept in `cache` and every sample is taught.
    """

    prior: str | None = None
    extractor_weights: str | None = None
    extractor: Literal["vgg19", "vgg19_imagenet", "mini"] = "vgg19"
    features: tuple[int, int, int] = (64, 64, 64)
    blocks: tuple[int, int, int, int] = (16, 16, 8, 4)
    folded: bool = False
    match_estimate: bool = False
    enhancer_steps: int = 1
    matching_image: Literal["enhanced", "bicubic", "joint"] = "joint"
    refined: bool = True
    match_once: bool = False
    deformable: bool = True
    cache: str = "runs/cache"
    perceptual: float = 0.0
    perceptual_weights: str | None = None
    adversarial: float = 0.0
    grid: float = 0.0
    reconstruction_steps: int = 0
    known: int = 0
    teacher: str | None = None
    teacher_network: TeacherName = "hitsrf"
    taught: float = 0.5
    teaching: float = 0.75
    kept: bool = True


@dataclass(frozen=True)
class BaselineConfig:
    """A published network of `evaluation.baselines`, trained for the reconstruction loss alone (L1).

    network: its name there. sizes: arguments of it, for a smaller form. vgg: safetensors of VGG19 to relu3_1, for those
    that match or transfer its features (TTSR, C2-Matching), which stay as they are.
    """

    network: Literal["srcnn", "edsr-baseline", "ttsr", "masa", "c2-matching"] = "edsr-baseline"
    sizes: dict[str, Any] = field(default_factory=dict)
    vgg: str | None = None


@dataclass(frozen=True)
class LogConfig:
    """Progress to CSV every `every` steps; a checkpoint every `checkpoint_minutes`; figures on at most `pairs` held-out
    pairs every `validate` steps."""

    every: int = 20
    checkpoint_minutes: float = 4.0
    validate: int = 500
    pairs: int = 32


@dataclass(frozen=True)
class RunConfig:
    """One training run: which part, on what, how long, written where.

    degradation: with this table, even an empty one, LR images are degraded. init: `export` folder of a run to start
    from, a pipeline's folder, its name on the Hub, or "def-mini". freeze: beginnings of the names of parameters
    that stay as they are.
    """

    part: Literal["kernel", "extractor", "prior", "reference", "baseline"]
    output: str
    data: DataConfig
    optim: OptimConfig
    seed: int = 0
    degradation: DegradationConfig | None = None
    init: str | None = None
    freeze: tuple[str, ...] = ()
    extractor: ExtractorConfig = field(default_factory=ExtractorConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    reference: ReferenceConfig = field(default_factory=ReferenceConfig)
    baseline: BaselineConfig = field(default_factory=BaselineConfig)
    log: LogConfig = field(default_factory=LogConfig)


def load_config(path: str | Path) -> RunConfig:
    """Read a run file. Raises ValueError naming the key that is unknown, missing or of another type than expected."""
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"cannot read the run file {path}: {error}") from error
    config = _build(RunConfig, table, "")
    assert isinstance(config, RunConfig)
    return config


def _build(kind: Any, value: Any, where: str) -> Any:
    """Turn what TOML gave into `kind`, checking every key and type on the way."""
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise ValueError(f"{where or 'the file'}: expected a table, got {value!r}")
        hints = typing.get_type_hints(kind)
        if unknown := sorted(value.keys() - hints.keys()):
            raise ValueError(f"unknown key {_join(where, unknown[0])}; known here: {', '.join(hints)}")
        missing = [f.name for f in dataclasses.fields(kind) if _is_required(f) and f.name not in value]
        if missing:
            raise ValueError(f"missing key {_join(where, missing[0])}")
        return kind(**{k: _build(hints[k], v, _join(where, k)) for k, v in value.items()})  # type: ignore[operator]
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and isinstance(value, list):
        kinds = arguments[:1] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(kinds) != len(value):
            raise ValueError(f"{where}: expected {len(kinds)} values, got {len(value)}")
        return tuple(_build(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"{where}: expected one of {arguments}, got {value!r}")
        return value
    if origin in (typing.Union, types.UnionType):
        return _build(next(k for k in arguments if k is not type(None)), value, where)
    if origin is dict:
        kind = dict  # its keys are checked by what they are the arguments of
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"{where}: expected {getattr(kind, '__name__', kind)}, got {value!r}")
    return value


def _is_required(field_: dataclasses.Field[Any]) -> bool:
    return field_.default is dataclasses.MISSING and field_.default_factory is dataclasses.MISSING


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
