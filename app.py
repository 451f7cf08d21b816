"""The browser interface: `build_demo(pipeline)` is widgets and wiring, nothing else.

`python app.py` starts it with the model that `DEF_MODEL` names (a folder or a Hub name), or with the embedded
one.
"""

import logging
import os
import time
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from PIL import Image

from def_hub import DEFPipeline, images, make_operator, visualization
from def_hub.pipeline import PRESETS

EXAMPLES = Path(__file__).parent / "examples"
MAX_INPUT_PIXELS = 1_000_000  # sixteen times as many come out
MAX_REFERENCE_PIXELS = 16_000_000
MAX_REFERENCES = 8
MAX_STEPS = 50

TITLE = "# Sharper with a reference\n"
INTRODUCTION = """
Give it a small photograph and, if you have any, sharp photographs of the same place or thing. The result is
four times larger. Detail is taken from the references where they match and from a diffusion model where they
do not; the **provenance** tab shows which is which. Made smaller again, the result is the picture you gave.
"""

log = logging.getLogger(__name__)


def build_demo(pipeline: DEFPipeline) -> gr.Blocks:
    """The interface around a loaded pipeline; start it with `.queue().launch()`."""

    def upscale(
        photo: str | None,
        references: list[tuple[str, str | None]] | None,
        preset: str,
        steps: int,
        eta: float,
        seed: int,
        strength: float,
        matching_image: str,
        consistency: bool,
        progress: gr.Progress = gr.Progress(track_tqdm=True),  # noqa: B008  (Gradio finds it by this default)
    ) -> tuple[Any, ...]:
        """Enlarge a photograph four times, with references if there are any."""
        files = [path for path, _ in references or []]
        try:
            image, sharp = _open(photo, files)
            options: dict[str, Any] = {
                "preset": preset,
                "num_inference_steps": int(steps),
                "eta": eta,
                "consistency": consistency,
            }
            options |= {"reference_strength": strength, "matching_image": matching_image}
            generator = torch.Generator().manual_seed(int(seed))
            started = time.perf_counter()
            output = pipeline(image, sharp or None, generator=generator, output_type="pt", **options)
            seconds = time.perf_counter() - started
            pictures = visualization.pictures(output, 0, sharp)
        except (ValueError, TypeError) as error:
            raise gr.Error(_public(str(error), [photo, *files]), print_exception=False) from error
        except MemoryError as error:
            raise gr.Error("There is not enough memory for pictures of this size.", print_exception=False) from error
        except Exception as error:
            log.exception("upscaling failed")
            raise gr.Error("Something went wrong on the server; its log says what.", print_exception=False) from error
        result = images.to_pil(output.images[0])
        before = images.to_pil(make_operator().upsample(image))
        names = ("enhanced", "matches", "confidence", "provenance", "transferred")
        return (
            (before, result),
            result,
            *(pictures.get(name) for name in names),
            _summary(output, result, seconds),
        )

    with gr.Blocks(title="def_hub", delete_cache=(3600, 3600), analytics_enabled=False) as demo:
        gr.Markdown(TITLE + INTRODUCTION)
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                photo = gr.Image(
                    label="Small photograph",
                    type="filepath",
                    format="png",
                    image_mode=None,
                    sources=["upload", "clipboard"],
                    height=280,
                )
                # Gradio's own reading drops alpha and 16-bit values, and shows a server path when it fails.
                photo.preprocess = lambda payload: payload and payload.path
                references = gr.Gallery(
                    label=f"References (up to {MAX_REFERENCES}, any size)",
                    type="filepath",
                    format="png",
                    file_types=["image"],
                    columns=3,
                    height=220,
                    object_fit="contain",
                    interactive=True,
                )
                preset = gr.Radio(
                    list(PRESETS),
                    value="balanced",
                    label="Preset",
                    info="balanced keeps to what is known, detail looks sharper and invents more",
                )
                with gr.Accordion("Settings", open=False):
                    standard = PRESETS["balanced"]
                    steps = gr.Slider(1, MAX_STEPS, standard.steps, step=1, label="Diffusion steps")
                    eta = gr.Slider(0, 1, standard.eta, step=0.05, label="η: fresh noise per step")
                    seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1)
                    strength = gr.Slider(0, 1, 1, step=0.05, label="How much the references may add")
                    matching = gr.Radio(["joint", "enhanced", "bicubic"], value="joint", label="Matching image")
                    consistency = gr.Checkbox(True, label="Make the result agree with the input")
                run = gr.Button("Enlarge", variant="primary")
            with gr.Column(scale=3, min_width=420):
                with gr.Tabs():
                    with gr.Tab("Compare"):
                        slider = gr.ImageSlider(
                            label="bicubic | result", format="png", type="pil", height=560, interactive=False
                        )
                    with gr.Tab("Result"):
                        result = _output("Result, full size")
                    with gr.Tab("Enhanced"):
                        enhanced = _output("What the diffusion made of the input, before any reference")
                    with gr.Tab("Matches"):
                        matches = _output("Where each place was found in the references")
                    with gr.Tab("Confidence"):
                        confidence = _output("How sure the matches are")
                    with gr.Tab("Provenance"):
                        provenance = _output("Where each pixel comes from")
                    with gr.Tab("Texture"):
                        transferred = _output("The reference texture, laid out like the input")
                summary = gr.Markdown()
        inputs = [photo, references, preset, steps, eta, seed, strength, matching, consistency]
        outputs = [slider, result, enhanced, matches, confidence, provenance, transferred, summary]
        run.click(upscale, inputs, outputs, api_name="upscale", api_visibility="public", concurrency_limit=1)
        preset.change(
            lambda name: (PRESETS[name].steps, PRESETS[name].eta, PRESETS[name].matching_image),
            preset,
            [steps, eta, matching],
            api_visibility="private",
        )
        gr.Examples(_examples(), [photo, references], label="Examples", cache_examples=False)
    return demo


def main() -> None:
    """Load the model and serve the interface until it is stopped."""
    name = os.environ.get("DEF_MODEL")
    pipeline = DEFPipeline.from_pretrained(name) if name else DEFPipeline.from_pretrained()
    pipeline.to("cuda" if torch.cuda.is_available() else "cpu")
    build_demo(pipeline).queue(max_size=16).launch(**launch_options())


def launch_options() -> dict[str, Any]:
    """What `launch` is called with, here and in the tests."""
    return {
        "theme": gr.themes.Soft(
            primary_hue="teal", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        ),
        "max_file_size": "40mb",
        "enable_monitoring": False,
        "ssr_mode": False,
        "footer_links": [],
    }


def _open(photo: str | None, references: list[str]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The uploaded files as tensors. Raises `ValueError` where one is missing, too large or no picture."""
    if photo is None:
        raise ValueError("Upload a small photograph first.")
    if len(references) > MAX_REFERENCES:
        raise ValueError(f"At most {MAX_REFERENCES} references, got {len(references)}.")
    _check_pixels(photo, MAX_INPUT_PIXELS, "The photograph")
    for number, path in enumerate(references, start=1):
        _check_pixels(path, MAX_REFERENCE_PIXELS, f"Reference {number}")
    return images.to_tensor(photo, "photograph"), [images.to_tensor(path, "reference") for path in references]


def _check_pixels(path: str, limit: int, name: str) -> None:
    """Read the size alone, before anything is decoded."""
    try:
        with Image.open(path) as opened:
            width, height = opened.size
    except Exception as error:
        raise ValueError(f"{name} is not a picture that can be read.") from error
    if width * height > limit:
        raise ValueError(f"{name} has {width}×{height} pixels; at most {limit / 1e6:g} million are taken here.")


def _public(message: str, paths: list[str | None]) -> str:
    """An error text without the folders of this server."""
    for path in filter(None, paths):
        message = message.replace(path, Path(path).name)
    return " ".join(message.split())


def _summary(output: Any, result: Image.Image, seconds: float) -> str:
    share = float(output.provenance[0][2:].sum(dim=0).mean()) if len(output.provenance[0]) > 2 else 0.0
    return (
        f"{result.width}×{result.height} pixels in {seconds:.1f} s. {100 * share:.0f} % of the pixels are "
        "served by the references. Made smaller, the result differs from the input by at most "
        f"{output.consistency_error[0]:.2f} of 255."
    )


def _output(label: str) -> gr.Image:
    return gr.Image(
        label=label,
        format="png",
        type="pil",
        height=560,
        interactive=False,
        buttons=["download", "fullscreen"],
    )


def _examples() -> list[list[Any]]:
    names = ("street", "robot", "banana")
    return [
        [str(EXAMPLES / f"{name}_lr.png"), [str(path) for path in sorted(EXAMPLES.glob(f"{name}_ref*.jpg"))]]
        for name in names
    ]


if __name__ == "__main__":
    main()
