"""The paper's ablation (Table 2) with equal data, steps, seeds and losses, and a comparison of ways to match.

    python examples/ablation.py [--run-file examples/ablation.toml] [--steps N] [--output examples/ablation.md]

The script trains five networks. A finished training is not repeated.

- base: bicubic images are matched and restored; features are transferred without change.
- + DEF: with detail enhancement.
- + DCN: with deformable transfer.
- + DEF + DCN: with both, the paper's method.
- + DEF + DCN + refinement: matches are also refined and aligned, which the paper does not do.

Then it measures each network on the held-out pairs, and the error of the warped reference for every way to match.
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
from pathlib import Path

import torch
from matching_table import OPERATOR, Row
from torch import Tensor

from def_hub import ReferenceNetwork
from def_hub.config import RunConfig, load_config
from def_hub.data import open_validation
from def_hub.evaluation.metrics import Protocol, psnr, ssim
from def_hub.pipeline import EMBEDDED
from def_hub.reference.matching import PAIRINGS, Views, match, match_coarse_to_fine
from def_hub.training import run
from def_hub.training.given import degrade
from def_hub.training.prior import enhance, load_enhancer
from def_hub.training.reference import BICUBIC, ReferenceTask

HEAD = (
    "# Ablation\n\n`python examples/ablation.py --output examples/ablation.md`; the README discusses the results.\n\n"
)
VARIANTS = {
    "base": {"prior": "bicubic", "matching_image": "bicubic", "refined": False, "deformable": False},
    "+ DEF": {"matching_image": "enhanced", "refined": False, "deformable": False},
    "+ DCN": {"prior": "bicubic", "matching_image": "bicubic", "refined": False, "deformable": True},
    "+ DEF + DCN": {"matching_image": "enhanced", "refined": False, "deformable": True},
    "+ DEF + DCN + refinement": {"matching_image": "joint", "refined": True, "deformable": True},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-file", type=Path, default=Path(__file__).with_name("ablation.toml"))
    parser.add_argument("--steps", type=int, help="training steps, instead of the run file's")
    parser.add_argument("--output", type=Path, help="also write the tables to this file")
    options = parser.parse_args()
    config = load_config(options.run_file)
    if options.steps:
        config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, steps=options.steps))

    git = ["git", "rev-parse", "--short", "HEAD"]  # asked before training: HEAD may move during the hours of a run
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip()
    trained = {name: train(config, name, changes) for name, changes in VARIANTS.items()}
    held_out = [tuple(x[None].float() / 255 for x in (p.image, p.reference)) for p in open_validation(config.data, 64)]
    text = (
        f"{len(held_out)} held-out pairs, {Protocol()}, {config.optim.steps} steps, seed {config.seed}, commit {commit}"
    )
    text += "\n\n" + results(config, trained, held_out) + "\n" + warped(config, trained["base"], held_out)
    print(text)
    if options.output:
        options.output.write_text(HEAD + text, encoding="utf-8")


def train(config: RunConfig, name: str, changes: dict[str, object]) -> Path:
    """Train one variant. Returns the folder with its weights."""
    output = Path(config.output) / name.replace("+ ", "").replace(" ", "-").lower()
    variant = dataclasses.replace(config.reference, **changes)  # type: ignore[arg-type]
    return run(dataclasses.replace(config, reference=variant, output=str(output)))


@torch.no_grad()
def results(config: RunConfig, trained: dict[str, Path], pairs: list[tuple[Tensor, ...]]) -> str:
    """A table of PSNR and SSIM: each variant with its own reference, without one, and with another pair's reference."""
    lines = ["| network | reference | none | unrelated | SSIM |", "|---|---:|---:|---:|---:|"]
    enhancer = load_enhancer(str(EMBEDDED))
    for name, folder in trained.items():
        variant = dataclasses.replace(config.reference, **VARIANTS[name])  # type: ignore[arg-type]
        task = ReferenceTask(dataclasses.replace(variant, perceptual=0.0), [])
        task.start_from(folder)
        scores: dict[str, list[float]] = {"true": [], "none": [], "unrelated": [], "ssim": []}
        for number, (truth, reference) in enumerate(pairs):
            other = pairs[(number + len(pairs) // 2) % len(pairs)][1]
            for kind, sharp, present in (("true", reference, 1.0), ("none", reference, 0.0), ("unrelated", other, 1.0)):
                batch = {"image": truth, "reference": sharp, "present": torch.tensor([present])}
                if variant.prior != BICUBIC:
                    batch["enhanced"] = enhance(enhancer, truth, variant.enhancer_steps)
                    batch["enhanced_reference"] = enhance(enhancer, sharp, variant.enhancer_steps)
                out = task.eval().restored(batch).clamp(0, 1)
                scores[kind].append(float(psnr(out, truth)))
                if kind == "true":
                    scores["ssim"].append(float(ssim(out, truth)))
        mean = {kind: sum(values) / len(values) for kind, values in scores.items()}
        lines.append(
            f"| {name} | {mean['true']:.2f} | {mean['none']:.2f} | {mean['unrelated']:.2f} | {mean['ssim']:.4f} |"
        )
    return "\n".join(lines) + "\n"


@torch.no_grad()
def warped(config: RunConfig, base: Path, pairs: list[tuple[Tensor, ...]]) -> str:
    """A table that compares the warped reference with the truth, for every way to match."""
    extractor = ReferenceNetwork.from_pretrained(base / "refsr").feature_extractor
    enhancer = load_enhancer(str(EMBEDDED))
    rows: dict[tuple[str, str], Row] = {}
    for truth, reference in pairs:
        image, key = (
            Views(OPERATOR.upsample(degrade(x)), enhance(enhancer, x, config.reference.enhancer_steps), x)
            for x in (truth, reference)
        )
        for name in PAIRINGS:
            for refined, search in (("no", match), ("yes", match_coarse_to_fine)):
                matches = search(Views(image.bicubic, image.enhanced), [key], extractor, name)
                rows.setdefault((name, refined), Row()).add(truth, image.enhanced, reference, matches)
    lines = ["| matching image | refined | warped PSNR | correlation of detail |", "|---|---|---:|---:|"]
    lines += [
        f"| {name} | {refined} | {row.mean_psnr():.2f} | {row.correlations()[0]:.3f} |"
        for (name, refined), row in rows.items()
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
