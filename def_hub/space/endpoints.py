"""The named API: for `gradio_client`, for any HTTP client, and as tools of an MCP client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gradio as gr
from gradio.data_classes import FileData, GradioRootModel
from gradio.processing_utils import save_base64_to_cache
from gradio.utils import get_upload_folder

from def_hub.crop import Crop, Size
from def_hub.service.call import ALLOWED, MAX_SEED, MAX_STEPS, RunOptions
from def_hub.service.result import Result
from def_hub.service.runner import Runner, complaint
from def_hub.service.session import Session
from def_hub.service.uploads import MAX_GIVEN_PIXELS, MAX_REFERENCES, check_photo, check_references
from def_hub.settings import DEFAULT_PRESET, PRESETS, SCALES
from def_hub.space.links import check_no_link
from def_hub.space.tools import return_pictures

SCALE = PRESETS[DEFAULT_PRESET].scale
TOLD = ("result", "enhanced", "confidence", "overlay", "steps", "matches", "transferred")


def add_endpoints(runner: Runner) -> None:
    """Register `upscale`, `inspect` and `rank_references` in the Blocks at hand."""
    return_pictures()
    with gr.Column(visible=False):  # these components describe the parameters; nothing is shown
        endpoints = Endpoints(runner)
        button = gr.Button()
    inputs, outputs = endpoints.inputs, endpoints.outputs
    few = [inputs[name] for name in ("photo", "references", "preset", "seed", "degradation", "fit", "crop", "scale")]
    options: dict[str, Any] = {"api_visibility": "public", "concurrency_limit": 1}
    button.click(
        endpoints.upscale,
        list(inputs.values()),
        [outputs["result"], outputs["report"]],
        api_name="upscale",
        concurrency_id="pipeline",
        **options,
    )
    button.click(
        endpoints.inspect,
        few,
        [outputs["pictures"], outputs["report"]],
        api_name="inspect",
        concurrency_id="pipeline",
        **options,
    )
    button.click(
        endpoints.rank_references,
        few[:2],
        outputs["ranking"],
        api_name="rank_references",
        concurrency_id="ranking",
        **options,
    )


class Endpoints:
    """inputs, outputs: components that describe the parameters, in order, and the results."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.inputs = _inputs()
        self.outputs = {
            "result": gr.Image(type="filepath", format="png", label="result"),
            "pictures": gr.Gallery(type="filepath", format="png", label="pictures"),
            "report": gr.JSON(label="report"),
            "ranking": gr.JSON(label="ranking"),
        }

    async def upscale(
        self,
        photo: str,
        references: list[str] | None = None,
        preset: str = DEFAULT_PRESET,
        steps: int | None = None,
        eta: float | None = None,
        seed: int = 0,
        strength: float = 1.0,
        matching_image: str | None = None,
        consistency: bool = True,
        degradation: str | None = None,
        fit: bool = False,
        crop: str | None = None,
        scale: int = SCALE,
    ) -> tuple[str, dict[str, Any]]:
        """Enlarge a small photograph two to eight times, with true detail from sharp references where they match.

        Example: `client.predict(handle_file("small.png"), handle_file("sharp.jpg"), api_name="/upscale")`.

        Args:
            photo: the small photograph, at most one million pixels, in any common format; a larger one with `fit` or
                `crop`.
            references: sharp photographs of the same place or thing, of any size; one, several or none.
            preset: fast, balanced (faithful) or detail (sharper to the eye, invents more).
            steps: diffusion steps, 1 to 50; the preset's where it is left out.
            eta: fresh noise per step, 0 to 1; the preset's where it is left out.
            seed: of all randomness; the same seed gives the same bytes.
            strength: how much the references may add, 0 to 1.
            matching_image: what is compared with the references: joint, enhanced or bicubic; the preset's
                where it is left out.
            consistency: make the result agree with the photograph when it is shrunk again.
            degradation: what happened to the photograph: auto (measured), clean, or a description such as jpeg70,
                noise5, blur3+jpeg60; the default where it is left out.
            fit: shrink a photograph that is too large, as little as needed.
            crop: enlarge only this part of the photograph, WIDTHxHEIGHT+LEFT+TOP in its pixels.
            scale: how many times larger the result is along each side: 2, 3, 4, 6 or 8.

        Returns:
            The result as a PNG, and a report: sizes, scores, parameters, weights, versions, seconds.
        """
        result = await self._enlarged(
            photo,
            references,
            preset,
            seed,
            fit,
            crop,
            num_inference_steps=steps,
            eta=eta,
            reference_strength=strength,
            matching_image=matching_image or None,
            consistency=consistency,
            degradation=degradation or None,
            scale=scale,
        )
        return _served(self.outputs["result"], result, "result"), result.report

    async def inspect(
        self,
        photo: str,
        references: list[str] | None = None,
        preset: str = DEFAULT_PRESET,
        seed: int = 0,
        degradation: str | None = None,
        fit: bool = False,
        crop: str | None = None,
        scale: int = SCALE,
    ) -> tuple[list[tuple[str, str]], dict[str, Any]]:
        """Enlarge a photograph and show how: matches, confidence, where detail came from, the diffusion's steps.

        Example: `client.predict(handle_file("small.png"), handle_file("sharp.jpg"), api_name="/inspect")`.

        Args:
            photo: the small photograph, at most one million pixels; a larger one with `fit` or `crop`.
            references: sharp photographs of the same place or thing; one, several or none.
            preset: fast, balanced or detail.
            seed: of all randomness.
            degradation, fit, crop, scale: as for `upscale`.

        Returns:
            PNG pictures with their names, and the report of `upscale`.
        """
        overrides = {"degradation": degradation or None, "scale": scale}
        result = await self._enlarged(photo, references, preset, seed, fit, crop, **overrides)
        pictures = self.outputs["pictures"]
        return [(_served(pictures, result, name), name) for name in TOLD if result.picture(name)], result.report

    def rank_references(self, photo: str, references: list[str]) -> list[dict[str, Any]]:
        """Order candidate references by the share of the photograph that each can serve, best first.

        Example: `client.predict(handle_file("small.png"), [handle_file("sharp.jpg")], api_name="/rank_references")`.

        Args:
            photo: the small photograph.
            references: candidates, of any size and format.

        Returns:
            For each candidate its index as given, its score from 0 to 1 (chance gives about 0.13), and a verdict:
            likely, possible or unlikely to help.
        """
        try:
            checked = check_photo(photo)
            candidates = [upload.path for upload in check_references(stored(references))]
            ranked = self.runner.rank(checked.path, candidates)
        except Exception as error:
            raise gr.Error(complaint(error), print_exception=False) from error
        return [{"index": r.index, "score": round(r.score, 4), "verdict": r.verdict} for r in ranked]

    async def _enlarged(
        self,
        photo: str | None,
        references: list[str] | None,
        preset: str,
        seed: int,
        fit: bool,
        crop: str | None,
        **overrides: Any,
    ) -> Result:
        """A run without a page. When the client goes away or cancels, it stops."""

        def begin() -> Iterator[Any]:
            options = RunOptions.of(preset, seed, **overrides)
            session = Session()
            uploads = check_references(stored(references), MAX_REFERENCES)
            session.set_uploads(uploads)
            _take(session, photo, options, fit, crop)
            session.set_uploads(uploads)  # with another photograph, none was chosen
            return self.runner.run(session, options)

        pool = ThreadPoolExecutor(1)  # one thread: closing waits for the step that is being waited for
        events = await _told(begin, pool)
        try:
            while True:
                progress = await _told(lambda: next(events), pool)
                if progress.drawn:
                    return progress.result
        finally:
            await asyncio.shield(asyncio.get_running_loop().run_in_executor(pool, events.close))
            pool.shutdown(wait=False)


def _inputs() -> dict[str, Any]:
    """The parameters of `upscale`. Values are checked by `RunOptions.of`, which says what was expected."""
    eta, strength, matching = (ALLOWED[name] for name in ("eta", "reference_strength", "matching_image"))
    presets = "; ".join(f"{name}: {settings.summary}" for name, settings in PRESETS.items())
    parameters = {
        "photo": _photo(label="photo: the small photograph, at most one million pixels, or more with fit or crop"),
        "references": several(label=f"references: sharp photographs, at most {MAX_REFERENCES} in a run"),
        "preset": gr.Radio(list(PRESETS), value=DEFAULT_PRESET, label=f"preset: {presets}"),
        "steps": gr.Number(
            None, precision=0, minimum=1, maximum=MAX_STEPS, label="steps: of the diffusion, or none for the preset's"
        ),
        "eta": gr.Number(
            None,
            minimum=eta.low,  # type: ignore[union-attr]
            maximum=eta.high,  # type: ignore[union-attr]
            label="eta: fresh noise per step, or none for the preset's",
        ),
        "seed": gr.Number(0, precision=0, minimum=0, maximum=MAX_SEED, label="seed: of all randomness"),
        "strength": gr.Slider(
            strength.low,  # type: ignore[union-attr]
            strength.high,  # type: ignore[union-attr]
            PRESETS[DEFAULT_PRESET].reference_strength,
            step=0.01,
            label="strength: how much the references may add",
        ),
        "matching_image": gr.Radio(
            list(matching.values),  # type: ignore[union-attr]
            label="matching_image, or none for the preset's",
        ),
        "consistency": gr.Checkbox(True, label="consistency: the result agrees with the photograph"),
        "degradation": gr.Textbox(
            label="degradation: auto, clean, or what happened to the photograph, such as jpeg70 or blur3+noise5"
        ),
        "fit": gr.Checkbox(False, label="fit: shrink a photograph that is too large"),
        "crop": gr.Textbox(label="crop: the part to enlarge, WIDTHxHEIGHT+LEFT+TOP, or none for the whole"),
        "scale": gr.Number(
            SCALE,
            precision=0,
            minimum=min(SCALES),
            maximum=max(SCALES),
            label=f"scale: {', '.join(map(str, SCALES))} times larger along each side",
        ),
    }
    for name in ("preset", "steps", "eta", "seed", "strength", "matching_image", "scale"):
        parameters[name].preprocess = lambda payload: payload
    return parameters


def _take(session: Session, photo: str | None, options: RunOptions, fit: bool, crop: str | None) -> None:
    """Let a photograph be the session's: a part of it with `crop`, shrunk with `fit` where it is too large."""
    if not fit and not crop:
        session.set_photo(check_photo(photo))
        return
    given = check_photo(photo, MAX_GIVEN_PIXELS)
    part = Crop.parse(crop) if crop else None
    size: Size = given.size if part is None else (part.height, part.width)
    most = session.largest(size, options) if fit else size
    session.give_part_of(given)
    session.set_smaller(part, most if most != size else None)


def _photo(**options: Any) -> gr.Image:
    """An image whose handler gets the path of the uploaded file itself. Gradio's own reading would convert it, and
    names a path of the server where it fails."""
    component = gr.Image(type="filepath", format="png", image_mode=None, sources=["upload"], **options)
    component.preprocess = lambda payload: payload and payload.path
    return component


def _served(component: Any, result: Result, name: str) -> str:
    """The picture where Gradio keeps what clients may fetch. The result's own folder goes when the call ends."""
    return component.move_resource_to_block_cache(result.picture(name))


def stored(references: list[str] | None) -> list[str]:
    """Paths of the references. MCP clients send files as data URLs, which are written to files."""
    return [
        save_base64_to_cache(given, get_upload_folder()) if given.startswith("data:") else given
        for given in references or []
    ]


class _Links(GradioRootModel):
    """One file or several, each uploaded or a data URL."""

    root: list[FileData | str] | FileData | str


def several(**options: Any) -> gr.File:
    """One file or several, also from MCP clients.

    Gradio's MCP server passes data URLs in a list on as they are, and describes files by definitions that are
    elsewhere in a tool's schema. (A subclass would make Gradio write a stub beside this file.)
    """
    component = gr.File(file_count="multiple", **options)
    schema = dict(component.api_info())
    definitions = schema.pop("$defs", {})

    def written_out(node: Any) -> Any:
        if isinstance(node, dict):
            name = node.get("$ref", "").rpartition("/")[2]
            return written_out(definitions[name]) if name else {k: written_out(v) for k, v in node.items()}
        return [written_out(item) for item in node] if isinstance(node, list) else node

    def taken(payload: _Links | None) -> list[str] | None:
        if payload is None:
            return None
        files = payload.root if isinstance(payload.root, list) else [payload.root]
        for given in files:
            check_no_link(given)
            if isinstance(given, str) and not given.startswith("data:"):
                raise gr.Error("references: expected uploaded files, or their data URLs", print_exception=False)
        return [given if isinstance(given, str) else given.path for given in files]

    described = written_out(schema)
    component.data_model, component.preprocess, component.api_info = _Links, taken, lambda: described
    return component


async def _told(function: Callable[[], Any], pool: ThreadPoolExecutor) -> Any:
    """Run in a thread. Whatever is raised becomes one line for the caller."""
    try:
        return await asyncio.get_running_loop().run_in_executor(pool, function)
    except Exception as error:
        raise gr.Error(complaint(error), print_exception=False) from error
