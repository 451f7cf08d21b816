"""The named API: for `gradio_client`, for any HTTP client, and as tools of an MCP client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gradio as gr
from gradio.data_classes import FileData, GradioRootModel
from gradio.processing_utils import save_base64_to_cache, ssrf_protected_download
from gradio.utils import get_upload_folder

from def_hub.space.outcome import Outcome
from def_hub.space.run import MAX_STEPS, Settings
from def_hub.space.studio import Studio, complaint
from def_hub.space.uploads import MAX_REFERENCES, check_photo, check_references
from def_hub.space.viewer import photograph
from def_hub.space.visit import Visit

TOLD = ("result", "enhanced", "confidence", "overlay", "steps", "matches", "transferred")


def add_endpoints(studio: Studio) -> None:
    """Register `upscale`, `inspect` and `rank_references` in the Blocks at hand."""

    async def upscale(
        photo: str,
        references: list[str] | None = None,
        preset: str = "balanced",
        steps: int | None = None,
        eta: float | None = None,
        seed: int = 0,
        strength: float = 1.0,
        matching_image: str | None = None,
        consistency: bool = True,
    ) -> tuple[str, dict[str, Any]]:
        """Enlarge a small photograph four times, with true detail from sharp references where they match.

        Args:
            photo: the small photograph, at most one million pixels, in any common format.
            references: sharp photographs of the same place or thing, of any size; none are needed.
            preset: fast, balanced (faithful) or detail (sharper to the eye, invents more).
            steps: diffusion steps, 1 to 50; the preset's where it is left out.
            eta: fresh noise per step, 0 to 1; the preset's where it is left out.
            seed: of all randomness; the same seed gives the same bytes.
            strength: how much the references may add, 0 to 1.
            matching_image: what is compared with the references: joint, enhanced or bicubic; the preset's
                where it is left out.
            consistency: make the result agree with the photograph when it is made smaller again.

        Returns:
            The result as a PNG, and a report: sizes, scores, parameters, weights, versions, seconds.
        """
        outcome = await enlarged(photo, references, preset, steps, eta, seed, strength, matching_image, consistency)
        return served(result, outcome, "result"), outcome.report

    async def inspect(
        photo: str, references: list[str] | None = None, preset: str = "balanced", seed: int = 0
    ) -> tuple[list[tuple[str, str]], dict[str, Any]]:
        """Enlarge a photograph and show how: matches, confidence, where detail came from, the diffusion's steps.

        Args:
            photo: the small photograph, at most one million pixels.
            references: sharp photographs of the same place or thing.
            preset: fast, balanced or detail.
            seed: of all randomness.

        Returns:
            PNG pictures with their names, and the report of `upscale`.
        """
        outcome = await enlarged(photo, references, preset, None, None, seed, 1.0, None, True)
        return [(served(pictures, outcome, name), name) for name in TOLD if outcome.picture(name)], outcome.report

    def served(component: Any, outcome: Outcome, name: str) -> str:
        """The picture where Gradio keeps what clients may fetch: the outcome's own folder goes when this call ends."""
        return component.move_resource_to_block_cache(outcome.picture(name))

    async def enlarged(photo: str | None, references: list[str] | None, preset: str, *values: Any) -> Outcome:
        """A run without a page; when the client goes away or cancels, it stops."""

        def begin() -> Iterator[Any]:
            visit = Visit()
            visit.set_photo(check_photo(photo))
            visit.set_uploads(check_references(fetched(references), MAX_REFERENCES))
            return studio.run(visit, _settings(preset, *values))

        pool = ThreadPoolExecutor(1)  # one thread: closing waits for the step that is being waited for
        events = await _told(begin, pool)
        try:
            while True:
                progress = await _told(lambda: next(events), pool)
                if progress.drawn:
                    return progress.outcome
        finally:
            await asyncio.shield(asyncio.get_running_loop().run_in_executor(pool, events.close))
            pool.shutdown(wait=False)

    def rank_references(photo: str, references: list[str]) -> list[dict[str, Any]]:
        """Order candidate references by the share of the photograph that each can serve, best first.

        Args:
            photo: the small photograph.
            references: candidates, of any size and format.

        Returns:
            For each candidate its index as given, its score from 0 to 1 (chance gives about 0.13), and a verdict:
            likely, possible or unlikely to help.
        """
        try:
            checked = check_photo(photo)
            candidates = [upload.path for upload in check_references(fetched(references))]
            ranked = studio.rank(checked.path, candidates)
        except Exception as error:
            raise gr.Error(complaint(error), print_exception=False) from error
        return [{"index": r.index, "score": round(r.score, 4), "verdict": r.verdict} for r in ranked]

    with gr.Column(visible=False):  # what the parameters are; nothing is shown
        photo = photograph(label="photo: the small photograph, at most one million pixels")
        references = several(label=f"references: sharp photographs, at most {MAX_REFERENCES} in a run")
        words = "preset: detail is sharper to the eye and invents more"
        preset = gr.Radio(["fast", "balanced", "detail"], value="balanced", label=words)
        steps = gr.Number(
            None, precision=0, minimum=1, maximum=MAX_STEPS, label="steps: of the diffusion, or none for the preset's"
        )
        eta = gr.Number(None, minimum=0, maximum=1, label="eta: fresh noise per step, or none for the preset's")
        seed = gr.Number(0, precision=0, minimum=0, maximum=2**31 - 1, label="seed: of all randomness")
        strength = gr.Slider(0, 1, 1, step=0.01, label="strength: how much the references may add")
        matching = gr.Radio(["joint", "enhanced", "bicubic"], label="matching_image, or none for the preset's")
        consistency = gr.Checkbox(True, label="consistency: the result agrees with the photograph")
        result = gr.Image(type="filepath", format="png", label="result")
        pictures = gr.Gallery(type="filepath", format="png", label="pictures")
        report = gr.JSON(label="report")
        ranking = gr.JSON(label="ranking")
        call = gr.Button()
    options: dict[str, Any] = {"api_visibility": "public", "concurrency_limit": 1}
    call.click(
        upscale,
        [photo, references, preset, steps, eta, seed, strength, matching, consistency],
        [result, report],
        api_name="upscale",
        concurrency_id="pipeline",
        **options,
    )
    call.click(
        inspect,
        [photo, references, preset, seed],
        [pictures, report],
        api_name="inspect",
        concurrency_id="pipeline",
        **options,
    )
    call.click(
        rank_references, [photo, references], ranking, api_name="rank_references", concurrency_id="ranking", **options
    )


LINKS = ("data:", "http://", "https://")


def fetched(references: list[str] | None) -> list[str]:
    """Paths, with links fetched as Gradio itself fetches a single one: never from a network that is not public."""

    def local(given: str) -> str:
        if not given.startswith(LINKS):
            return given
        fetch = save_base64_to_cache if given.startswith("data:") else ssrf_protected_download
        return fetch(given, get_upload_folder())

    return [local(given) for given in references or []]


class _Links(GradioRootModel):
    root: list[FileData | str]


def several(**options: Any) -> gr.File:
    """Several files that MCP clients can give, too.

    Gradio's MCP server leaves the links and data URLs that they send in a list as they are, and describes the files by
    definitions that are elsewhere in a tool's schema. (A subclass would make Gradio write a stub beside this file.)
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
        for given in payload.root:
            if isinstance(given, str) and not given.startswith(LINKS):
                raise gr.Error("references: expected uploaded files, or their http, https or data URLs")
        return [given if isinstance(given, str) else given.path for given in payload.root]

    described = written_out(schema)
    component.data_model, component.preprocess, component.api_info = _Links, taken, lambda: described
    return component


async def _told(function: Callable[[], Any], pool: ThreadPoolExecutor) -> Any:
    """Run in a thread; whatever is raised becomes one line for the caller."""
    try:
        return await asyncio.get_running_loop().run_in_executor(pool, function)
    except Exception as error:
        raise gr.Error(complaint(error), print_exception=False) from error


def _settings(
    preset: str,
    steps: int | None,
    eta: float | None,
    seed: int,
    strength: float,
    matching_image: str | None,
    consistency: bool,
) -> Settings:
    standard = Settings.of(preset)
    return Settings(
        preset,
        standard.num_inference_steps if steps is None else int(steps),
        standard.eta if eta is None else float(eta),
        int(seed),
        float(strength),
        matching_image or standard.matching_image,
        bool(consistency),
    )
