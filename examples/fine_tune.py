"""Fine-tune the embedded default on a few pairs of your own, and measure on held-out pairs whether it helped.

    python examples/fine_tune.py PAIRS [--minutes 8] [--output outputs/fine-tuned]

PAIRS holds the folders `input/` and `ref/`. Two pictures with the same file name are a pair; they need at least 160×160
pixels. Every fourth pair is left out of training, and measured before and after it. The result is a folder for
`DEFPipeline.from_pretrained`.
"""

import argparse
import dataclasses
from pathlib import Path

import torch

from def_hub import DEFPipeline, ReferenceNetwork
from def_hub.config import load_config
from def_hub.evaluation.metrics import psnr
from def_hub.images import list_pictures, shrink, to_tensor
from def_hub.training import run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path, help="folder with input/ and ref/")
    parser.add_argument("--minutes", type=float, default=8, help="stop training after this time")
    parser.add_argument("--steps", type=int, help="training steps, instead of the run file's")
    parser.add_argument("--output", type=Path, default=Path("outputs/fine-tuned"))
    options = parser.parse_args()

    names = [path.stem for path in list_pictures(options.pairs / "input")]
    if len(names) < 4:
        raise SystemExit(
            f"expected four pairs or more in {options.pairs}/input and {options.pairs}/ref, got {len(names)}"
        )
    left_out = tuple(names[3::4])
    config = load_config(Path(__file__).with_name("fine-tune.toml"))
    source = dataclasses.replace(config.data.sources[0], path=str(options.pairs))
    data = dataclasses.replace(config.data, sources=(source,), holdout=left_out)
    optim = dataclasses.replace(config.optim, steps=options.steps or config.optim.steps)
    config = dataclasses.replace(config, data=data, optim=optim)

    pipe = DEFPipeline.from_pretrained()
    pipe.set_progress_bar_config(disable=True)
    before = measure(pipe, options.pairs, left_out)
    trained = run(config, resume=False, max_minutes=options.minutes)
    pipe.refsr = ReferenceNetwork.from_pretrained(trained / "refsr")
    pipe.save_pretrained(options.output)
    after = measure(pipe, options.pairs, left_out)

    print(f"PSNR (Y, dB) on {len(left_out)} pairs left out of training")
    for name in left_out:
        print(f"  {name:20} {before[name]:.2f} → {after[name]:.2f}")
    gain = sum(after[n] - before[n] for n in left_out) / len(left_out)
    print(f"mean gain {gain:+.2f} dB; DEFPipeline.from_pretrained({str(options.output)!r})")


def measure(pipe: DEFPipeline, pairs: Path, names: tuple[str, ...]) -> dict[str, float]:
    """PSNR in dB of each pair's result, enlarged with its reference."""
    files = {(folder, p.stem): p for folder in ("input", "ref") for p in list_pictures(pairs / folder)}
    scores = {}
    for name in names:
        truth = to_tensor(files["input", name])
        truth = truth[..., : truth.shape[2] // 4 * 4, : truth.shape[3] // 4 * 4]
        generator = torch.Generator().manual_seed(0)
        result = pipe(shrink(truth), files["ref", name], generator=generator, output_type="pt").images[0]
        scores[name] = float(psnr(result[None], truth))
    return scores


if __name__ == "__main__":
    main()
