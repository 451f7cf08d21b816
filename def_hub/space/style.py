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
        block_title_text_color="*primary_800",
        checkbox_label_background_fill_selected="*primary_700",
        checkbox_label_background_fill_selected_dark="*primary_700",
        checkbox_border_color="*neutral_500",
        checkbox_background_color_selected="*primary_800",
        checkbox_background_color_selected_dark="*primary_800",
        button_secondary_background_fill_hover_dark="*neutral_700",
        **{f"button_primary_{part}{dark}": colour for part, colour in filled.items() for dark in ("", "_dark")},
    )


CSS = """
.dark { --color-accent: var(--primary-400); }
.def-fold { gap: 0 !important; border-radius: var(--block-radius); background: var(--block-background-fill);
  box-shadow: var(--block-shadow); }
.def-fold button[aria-expanded] { font: inherit; width: 100%; text-align: left; cursor: pointer; color: inherit;
  background: none; border: 0; box-shadow: none; padding: .8rem 1rem; border-radius: var(--block-radius); }
.def-fold button[aria-expanded]::before { content: "▸" / ""; display: inline-block; width: 1.2rem; }
.def-fold button[aria-expanded="true"]::before { content: "▾" / ""; }
.def-folded { padding: .3rem 1rem 1rem; }
.def-fold:has(> * button[aria-expanded="false"]) > .def-folded { display: none !important; }
.gradio-container :is(button, a, input, canvas, .def-pane):focus-visible, .gradio-container label:has(:focus-visible) {
  outline: 3px solid var(--color-accent) !important; outline-offset: 2px !important; }
.gradio-container .html-container { padding: 0 !important; }
:is(#candidates, #examples):not(:has(img)), #status:not(:has(.prose > *)), footer .divider { display: none !important; }
.def-label { font-weight: 600; font-size: .9rem; margin: 0 0 .5rem !important; }
.def-cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.2rem, 1fr)); gap: .6rem; list-style: none;
  padding: 0 !important; margin: 0 !important; }
.def-cards li { margin: 0; }
.def-card { font: inherit; font-size: .82rem; line-height: 1.35; text-align: left; width: 100%; height: 100%;
  padding: 0; display: flex; flex-direction: column; cursor: pointer; overflow: hidden; border-radius: var(--radius-lg);
  border: 3px solid var(--border-color-primary); background: var(--background-fill-primary);
  color: var(--body-text-color); }
.def-card[aria-pressed="true"] { border-color: var(--frame); }
.def-card[aria-pressed="false"] img { opacity: .55; }
.def-card[aria-disabled="true"] { cursor: not-allowed; opacity: .5; }
.def-card:hover:not([aria-disabled="true"]) { box-shadow: 0 1px 8px #0004; }
.def-card img { width: 100%; height: 6.5rem; object-fit: cover; margin: 0 !important; border-radius: 0 !important; }
.def-card span { padding: .4rem .55rem; }
.def-view, .def-draw { margin: 0; }
.def-bar { display: flex; flex-wrap: wrap; gap: .35rem; align-items: center; margin-bottom: .5rem; }
.def-bar button { font: inherit; font-size: .85rem; padding: .2rem .65rem; border-radius: 99px; cursor: pointer;
  border: 1px solid var(--border-color-primary); background: var(--background-fill-primary);
  color: var(--body-text-color); }
.def-bar button[aria-pressed="true"] { background: var(--button-primary-background-fill);
  color: var(--button-primary-text-color); border-color: transparent; }
.def-bar button span { color: inherit; }
.def-names { margin-left: auto; font-size: .85rem; color: var(--body-text-color-subdued); }
.def-bar label { font-size: .85rem; display: flex; align-items: center; gap: .4rem; }
.def-pane { position: relative; overflow: auto; max-height: 78vh; border-radius: var(--radius-lg); text-align: center;
  background: var(--background-fill-secondary); }
.def-stack { position: relative; display: inline-block; max-width: 100%; vertical-align: top; user-select: none; }
.def-stack img { display: block; width: 100%; max-width: none; margin: 0 !important; border-radius: 0 !important; }
.def-view:not([data-exact]) .def-after { width: auto; max-width: 100%; max-height: 76vh; }
.def-view[data-exact] .def-stack { max-width: none; }
.def-view[data-exact] img { height: 100%; image-rendering: pixelated; }
.def-stack:has(.def-before) { cursor: ew-resize; touch-action: pan-y; overflow: clip; }
.def-view[data-beyond] .def-stack { cursor: grab; touch-action: auto; }
.def-view .def-pointed { cursor: crosshair; }
.def-before { position: absolute; inset: 0; height: 100%; clip-path: inset(-1px calc(100% - var(--at)) -1px -1px); }
.def-line { position: absolute; inset: 0 auto 0 var(--at); width: 2px; margin-left: -1px; background: #fff;
  box-shadow: 0 0 4px #000a; cursor: ew-resize; touch-action: none; }
.def-line::before { content: ""; position: absolute; inset: 0 -12px; }
.def-line b { position: sticky; top: 50%; display: block; width: max-content; margin-left: 1px; background: #fff;
  transform: translate(-50%, -50%); color: #223; font-size: .8rem; line-height: 1; padding: .45rem .4rem;
  border-radius: 99px; box-shadow: 0 0 6px #0007; }
.def-range, .def-brush { appearance: none; height: .4rem; border-radius: 99px; cursor: pointer;
  background: var(--border-color-primary); }
.def-range { width: 100%; margin-top: .9rem; }
.def-range::-webkit-slider-thumb, .def-brush::-webkit-slider-thumb { appearance: none; width: 1.1rem; height: 1.1rem;
  border-radius: 99px; background: var(--color-accent); }
.def-range::-moz-range-thumb, .def-brush::-moz-range-thumb { width: 1.1rem; height: 1.1rem; border: 0;
  border-radius: 99px; background: var(--color-accent); }
.def-mark { position: absolute; aspect-ratio: 1; min-width: 14px; transform: translate(-50%, -50%);
  border: 2px solid #fff; outline: 3px solid #e6007e; border-radius: 4px; pointer-events: none;
  box-shadow: 0 0 0 6px #0006; }
.def-empty { min-height: 15rem; display: grid; place-items: center; text-align: center; padding: 1rem;
  border: 1px dashed var(--border-color-primary); border-radius: var(--radius-lg);
  color: var(--body-text-color-subdued); }
.def-canvas { touch-action: none; cursor: crosshair; }
.def-canvas [hidden] { display: none; }
.def-tip { display: none; position: absolute; left: 50%; top: 50%; width: 8%; aspect-ratio: 1; pointer-events: none;
  transform: translate(-50%, -50%); border-radius: 50%; border: 2px dashed #fff; outline: 2px solid #e6007e; }
.def-tip.def-down { border-style: solid; background: #e6007e88; }
canvas:focus-visible + .def-tip { display: block; }
.def-hint { font-size: .8rem; margin: .4rem 0 0 !important; color: var(--body-text-color-subdued); }
.def-canvas canvas { position: absolute; inset: 0; width: 100%; height: 100%; opacity: .6; }
.def-legend { display: flex; flex-wrap: wrap; gap: .4rem 1.2rem; list-style: none; padding: 0 !important;
  margin: .6rem 0 !important; }
.def-legend li { display: flex; align-items: center; gap: .45rem; margin: 0; font-variant-numeric: tabular-nums; }
.def-legend i { width: 1rem; height: 1rem; border-radius: 3px; border: 1px solid #8888; }
.def-progress { display: grid; gap: .3rem; }
.def-progress ol { display: flex; flex-wrap: wrap; gap: .2rem .9rem; list-style: none; padding: 0 !important;
  margin: 0 !important; font-size: .85rem; color: var(--body-text-color-subdued); }
.def-progress li { margin: 0; }
.def-progress [aria-current] { font-weight: 700; color: var(--body-text-color); }
.def-progress progress { width: 100%; height: .55rem; appearance: none; border: 0; border-radius: 99px;
  overflow: hidden; background: var(--border-color-primary); }
.def-progress ::-webkit-progress-bar { background: var(--border-color-primary); }
.def-progress ::-webkit-progress-value { background: var(--color-accent); transition: width .4s; }
.def-progress ::-moz-progress-bar { background: var(--color-accent); }
.gradio-container { overflow: clip !important; }  /* hidden, as Gradio has it, would be what `sticky` sticks to */
/* In sight while a long form is filled in; in a low window it would only be in the way. */
@media (min-width: 768px) and (min-height: 600px) {
  .column:has(> #tabs) { position: sticky; top: 0; align-self: flex-start; max-height: 100vh; overflow-y: auto;
    scrollbar-width: thin; padding: .5rem; margin: -.5rem; }
}
.form:has(> #pair) { background: none; border: 0; box-shadow: none; }
#dice { align-self: end; min-height: 0; height: 2.5rem; margin-bottom: .6rem; }
@media (max-width: 767px) {
  #pair > span { position: absolute; clip-path: inset(50%); }
  #pair { padding: 0; background: none; box-shadow: none; }
  #pair label { padding: .25rem .5rem; font-size: .8rem; gap: .35rem; }
  .def-folded { padding: .3rem .3rem .6rem; }
  :is(#pick, #found) .def-bar { gap: .2rem; }
  :is(#pick, #found) .def-bar button { font-size: .75rem; padding: .25rem .42rem; }
  :is(#pick, #found) .def-bar button span { display: none; }
}
.def-note { border-left: 3px solid var(--color-accent); padding: .15rem .8rem; }
.def-warn { border-left: 3px solid #d9480f; padding: .15rem .8rem; }
"""
