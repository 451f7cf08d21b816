"""How the page looks: colours, letters, and the style sheet of what is in `viewer`."""

from __future__ import annotations

from typing import Any

import gradio as gr


def theme() -> Any:
    """Teal, with the letters of the visitor's own system: none are fetched. Text keeps a contrast of 4.5 to its ground.

    Gradio's own teals and greys do not; its `color_accent` has no second value for the dark, so `CSS` has one.
    """
    filled = {"background_fill": "*primary_700", "background_fill_hover": "*primary_800"}
    soft = gr.themes.Soft(primary_hue="teal", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return soft.set(
        background_fill_primary="*neutral_50",  # said again: `set` forgets it
        color_accent="*primary_700",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        link_text_color="*primary_700",
        link_text_color_dark="*primary_300",
        block_label_text_color="*primary_800",
        block_label_background_fill_dark="*primary_800",
        block_title_text_color="*body_text_color",
        block_title_background_fill="none",
        block_title_background_fill_dark="none",
        block_title_padding="0",
        checkbox_label_background_fill_selected="*primary_700",
        checkbox_label_background_fill_selected_dark="*primary_700",
        checkbox_border_color="*neutral_500",
        checkbox_background_color_selected="*primary_800",
        checkbox_background_color_selected_dark="*primary_800",
        button_secondary_background_fill_hover_dark="*neutral_700",
        **{f"button_primary_{part}{dark}": colour for part, colour in filled.items() for dark in ("", "_dark")},
    )
