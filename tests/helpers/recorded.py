"""Recorded results, and the kind of processor that recorded them.

`python -m tests.helpers.recorded` records the shipped examples again. Run it only if their bytes change on purpose.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image

if TYPE_CHECKING:
    from def_hub import DEFPipeline

ROOT = Path(__file__).resolve().parents[2]
RECORDED = ROOT / "tests" / "data" / "recorded"
EXAMPLES = ("street", "robot", "banana")
PRESETS = ("fast", "balanced", "detail")
SIDE = 96  # side of the middle part of a result that is stored, in pixels


def processor() -> str:
    """Everything that decides the last bits of a float32 result: processor, instruction sets, version of torch."""
    try:
        lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    except OSError:
        lines = []
    about = {key.strip(): value.strip() for key, _, value in reversed(lines)}
    kind = [about.get(key, "?") for key in ("vendor_id", "cpu family", "model", "cache size")]
    flags = [name for name, there in torch.cpu.get_capabilities().items() if there is True]
    return " ".join([*kind, *sorted(flags), torch.__version__])


def digest(image: Image.Image) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


def middle(image: Image.Image) -> Image.Image:
    left, top = ((n - SIDE) // 2 for n in image.size)
    return image.crop((left, top, left + SIDE, top + SIDE))


def place(example: str, preset: str) -> tuple[int, int]:
    """Left and top of a result's middle on the recorded sheet."""
    return SIDE * PRESETS.index(preset), SIDE * EXAMPLES.index(example)


def enlarged(pipe: "DEFPipeline", example: str, preset: str) -> Image.Image:
    """The result of a shipped example with all its references, in float32 on two threads."""
    folder, threads = ROOT / "examples", torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        references = sorted(folder.glob(f"{example}_ref*"))
        generator = torch.Generator().manual_seed(0)
        lr = folder / f"{example}_lr.png"
        return pipe(lr, references, preset=preset, generator=generator, precision="float32").images[0]
    finally:
        torch.set_num_threads(threads)


def cases() -> list[tuple[str, str]]:
    return [(example, preset) for example in EXAMPLES for preset in PRESETS]


def main() -> None:
    from def_hub import DEFPipeline

    pipe = DEFPipeline.from_pretrained()
    sheet = Image.new("RGB", (SIDE * len(PRESETS), SIDE * len(EXAMPLES)))
    hashes = {}
    for example, preset in cases():
        result = enlarged(pipe, example, preset)
        hashes[f"{example}/{preset}"] = digest(result)
        sheet.paste(middle(result), place(example, preset))
    RECORDED.mkdir(parents=True, exist_ok=True)
    sheet.save(RECORDED / "examples.png")
    record = {"processor": processor(), "hashes": hashes}
    (RECORDED / "examples.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
