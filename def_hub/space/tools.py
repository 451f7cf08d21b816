"""Pictures as pictures for MCP clients, with links that they can follow."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from def_hub.space.visitors import signed

LINKED = "Image URL: "  # what Gradio puts before a link


def return_pictures() -> None:
    """Let the MCP tools return pictures as image content, and sign the links to them: such clients keep no cookies.

    Gradio's MCP server hands a tool's several outputs on as one tuple, and a gallery as one list. It then sends their
    Python representation as text. (Seen in Gradio 6.31, `GradioMCPServer._execute_tool_without_progress`.)
    """
    if find_spec("mcp") is None:
        return
    from gradio.mcp import GradioMCPServer

    original = GradioMCPServer.postprocess_output_data
    if getattr(original, "returns_pictures", False):
        return

    def postprocess(server: GradioMCPServer, data: Any, root_url: str) -> Any:
        told = original(server, list(_outputs(data)), root_url)
        for content in told:
            if content.type == "text" and content.text.startswith(LINKED):
                content.text = signed(content.text)
        return told

    postprocess.returns_pictures = True  # type: ignore[attr-defined]
    GradioMCPServer.postprocess_output_data = postprocess


def _outputs(data: Any) -> Iterator[Any]:
    """Single outputs out of tuples of them and out of galleries, each picture after its caption."""
    for output in data:
        if isinstance(output, tuple):
            yield from _outputs(output)
        elif isinstance(output, list) and output and all(isinstance(e, dict) and "image" in e for e in output):
            for entry in output:
                yield from (entry["caption"], entry["image"])
        else:
            yield output
