"""One picture with its reference on the CPU and on a GPU: how far the results differ, their seconds, their memory.

Run by `check.sh`. One call warms each device up, the second is measured. The memory is the GPU's peak.
"""

import argparse
import time
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from def_hub import DEFPipeline
from def_hub.evaluation.metrics import Protocol, psnr
from def_hub.settings import PRESETS

EXAMPLES = Path(__file__).resolve().parents[1]
RGB = Protocol(channel="rgb")


def measured(pipe: DEFPipeline, device: str, pictures: tuple[Image.Image, Image.Image], preset: str, steps: int | None):
    """The result `[1, 3, H, W]`, seconds, and the peak of the device's memory in MB (0 on a CPU)."""
    pipe.to(device)
    on_gpu = device != "cpu"
    for _ in range(2):
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        generator = torch.Generator().manual_seed(0)
        image, reference = pictures
        output = pipe(
            image, reference, preset, generator, num_inference_steps=steps, precision="float32", output_type="pt"
        )
        if on_gpu:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    result: Tensor = output.images[0]
    return result[None].float().cpu(), seconds, torch.cuda.max_memory_allocated() / 1e6 if on_gpu else 0.0


def main() -> None:
    """Print a row for each preset; fails where the results differ by more than a quarter of a level on average."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="folder of a pipeline (default: the embedded one)")
    parser.add_argument("--try", dest="trial", action="store_true", help="small, on the CPU alone")
    options = parser.parse_args()
    device = "cpu" if options.trial else "cuda"
    image, reference = (Image.open(EXAMPLES / name) for name in ("street_lr.png", "street_ref1.jpg"))
    steps = None
    if options.trial:
        image, reference, steps = image.crop((0, 0, 24, 24)), reference.resize((96, 96)), 2
    pipe = DEFPipeline.from_pretrained(options.model)
    pipe.set_progress_bar_config(disable=True)
    print(f"{image.width}x{image.height}, {torch.cuda.get_device_name() if device == 'cuda' else 'CPU'}, float32")
    print(f"{'preset':10}{'PSNR between':>14}{'largest':>9}{'CPU s':>8}{device + ' s':>8}{'MB':>7}")
    worst = 0.0
    for preset in PRESETS:
        ours, cpu_seconds, _ = measured(pipe, "cpu", (image, reference), preset, steps)
        theirs, seconds, memory = measured(pipe, device, (image, reference), preset, steps)
        agreement = float(psnr(ours, theirs, RGB))
        largest = float((ours - theirs).abs().max()) * 255
        worst = max(worst, float((ours - theirs).abs().mean()) * 255)
        print(f"{preset:10}{agreement:11.1f} dB{largest:9.2f}{cpu_seconds:8.2f}{seconds:8.2f}{memory:7.0f}", flush=True)
    if worst > 0.25:
        raise SystemExit(f"the results differ by {worst:.2f}/255 on average")


if __name__ == "__main__":
    main()
