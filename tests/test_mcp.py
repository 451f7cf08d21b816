"""The named endpoints as tools for an MCP client."""

import asyncio
import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import app
from tests.conftest import EXAMPLES, make_tiny_pipe
from tests.test_app import corner, expected

mcp = pytest.importorskip("mcp", reason="no MCP: pip install 'def_hub[mcp]'")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    demo = app.build_demo(make_tiny_pipe()).queue(max_size=4)
    _, url, _ = demo.launch(
        **app.launch_options(), prevent_thread_lock=True, quiet=True, server_name="127.0.0.1", mcp_server=True
    )
    yield f"{url}gradio_api/mcp/"
    demo.close()


def talk(url: str, *calls: tuple[str, dict[str, Any]]) -> tuple[list[Any], list[Any]]:
    """The tools, and the answers to the calls."""
    from mcp.client.streamable_http import streamable_http_client

    async def session() -> tuple[list[Any], list[Any]]:
        async with streamable_http_client(url) as (reading, writing, _):
            async with mcp.ClientSession(reading, writing) as session:
                await session.initialize()
                tools = (await session.list_tools()).tools
                return tools, [await session.call_tool(name, arguments) for name, arguments in calls]

    return asyncio.run(asyncio.wait_for(session(), 120))


def test_only_the_public_endpoints_are_tools_and_have_descriptions(url: str) -> None:
    tools, _ = talk(url)
    named = {tool.name.removeprefix("def_hub_"): tool for tool in tools}
    assert {"upscale", "inspect", "rank_references"} <= set(named), set(named)
    assert all("photograph" in tool.description for tool in named.values())
    assert set(named["upscale"].inputSchema["properties"]) >= {"photo", "references", "preset", "steps", "seed"}


def test_tools_do_what_the_endpoints_do(url: str, tmp_path: Path) -> None:
    photo, reference = (as_url(path) for path in corner(tmp_path))
    given = {"photo": photo, "references": [reference]}
    quick = {"preset": "fast", "seed": 4, "matching_image": "joint"}
    _, (large, ranking, refused) = talk(
        url, ("upscale", given | quick), ("rank_references", given), ("upscale", {"photo": as_url(text(tmp_path))})
    )
    assert not large.isError and not ranking.isError
    (picture,) = [content for content in large.content if content.type == "image"]
    assert picture.mimeType == "image/png"
    result = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture.data))))
    assert np.array_equal(result, expected(make_tiny_pipe(), *corner(tmp_path)))
    link = next(c.text for c in large.content if c.type == "text" and "result.png" in c.text).split()[-1]
    assert np.array_equal(result, np.asarray(Image.open(io.BytesIO(httpx.get(link).content))))
    assert httpx.get(link.partition("?")[0]).status_code == 403  # the link is theirs, not everyone's who has the path
    assert any("consistency_error" in c.text for c in large.content if c.type == "text")
    assert "'verdict'" in ranking.content[0].text
    assert refused.isError and "not a picture that can be read" in refused.content[0].text


def test_one_reference_and_all_pictures_of_inspect(url: str, tmp_path: Path) -> None:
    photo, reference = (as_url(path) for path in corner(tmp_path))
    _, (inspected,) = talk(url, ("inspect", {"photo": photo, "references": [reference], "preset": "fast"}))
    pictures = [content for content in inspected.content if content.type == "image"]
    names = [content.text for content in inspected.content if content.type == "text"]
    assert len(pictures) == 7 and {"result", "matches", "confidence"} <= set(names)


def test_tools_read_no_files_of_the_server_or_its_network(url: str, tmp_path: Path) -> None:
    photo = as_url(corner(tmp_path)[0])
    there = str(EXAMPLES / "street_ref1.jpg")
    _, answers = talk(url, *(("upscale", {"photo": photo, "references": [r]}) for r in (there, f"{url}file={there}")))
    assert all(answer.isError for answer in answers)


def text(folder: Path) -> Path:
    path = folder / "text.png"
    path.write_text("not a picture")
    return path


def as_url(path: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
