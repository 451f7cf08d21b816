"""Pictures as Gradio components: compared, zoomed to exact pixels, pointed at, drawn over. Works with the keyboard.

Gradio's own image components resample what they show, have no text for those who cannot see it, and its slider cannot
be moved by keys. These are a few small templates; all strings that come from Python pass through `escape`.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

Mark = tuple[float, float, float]  # x, y and side as shares of the width (y: of the height)

VIEW = """
${!value ? `<p class="def-empty">EMPTY</p>` : `
<figure class="def-view">
  <div class="def-bar" role="group" aria-label="Zoom">
    ${['fit', '1', '2', '4'].map(z => `<button type="button" data-zoom="${z}" aria-pressed="${z === 'fit'}">${
      z === 'fit' ? 'Fit' : 100 * z + '<span> %</span>'}</button>`).join('')}
    <span class="def-names">${value.names}</span>
  </div>
  <div class="def-pane" tabindex="0" role="group" aria-label="${value.alt}. ${
    'KIND' === 'pointed' ? 'Arrow keys move the point.' : value.pictures.length > 1 ?
    'Arrow keys move the divider; zoomed in they move the picture, and with Shift the divider.' :
    'Zoomed in, arrow keys move the picture.'}">
    <div class="def-stack def-KIND" style="--at: 50%">
      <img class="def-after" draggable="false" src="${value.pictures[value.pictures.length - 1].url}"
        alt="${value.alt}">
      ${value.pictures.length > 1 ? `<img class="def-before" draggable="false" src="${value.pictures[0].url}"
        alt="${value.before}"><div class="def-line" aria-hidden="true"><b>◂&nbsp;▸</b></div>` : ''}
      ${value.mark ? `<span class="def-mark" aria-hidden="true" style="left: ${100 * value.mark[0]}%;
        top: ${100 * value.mark[1]}%; width: ${100 * value.mark[2]}%"></span>` : ''}
    </div>
  </div>
  ${value.pictures.length > 1 ? `<input class="def-range" type="range" min="0" max="100" step="0.5" value="50"
    aria-label="Divider: ${value.before} on the left, ${value.alt} on the right">` : ''}
</figure>`}
"""

VIEW_SCRIPT = """
let zoomed = 'fit', at = 50, cross = [0.5, 0.5], natural = null, room = 0, held = null;
const one = s => element.querySelector(s);

// Fit: by the largest whole number that fits, at most 4, where the browser would not show it larger than that.
const whole = pane => {
  const share = Math.min(pane.clientWidth / natural[0], 0.76 * innerHeight / natural[1]);
  const number = Math.floor(Math.min(4, share) * devicePixelRatio);
  return number / devicePixelRatio >= Math.min(1, share) ? number : 0;
};
const fit = () => {
  const stack = one('.def-stack'), image = one('.def-after'), pane = one('.def-pane');
  if (!stack) return;
  for (const b of element.querySelectorAll('button[data-zoom]')) b.ariaPressed = String(b.dataset.zoom === zoomed);
  if (image.naturalWidth) natural = [image.naturalWidth, image.naturalHeight];
  if (!natural || !pane.clientWidth) return;
  // Exact: one pixel of the picture is 1, 2, 3 or 4 pixels of the screen. Browsers cut lengths to 1/64 of a CSS pixel:
  // rounded up, and from an edge that is where a pixel of the screen begins, it is not a screen pixel less.
  const scale = zoomed === 'fit' ? whole(pane) : +zoomed, ratio = devicePixelRatio;
  const size = natural.map(n => scale ? Math.ceil(64 * n * scale / ratio) / 64 + 'px' : '');
  [stack.style.width, stack.style.height] = size;
  one('.def-view').toggleAttribute('data-exact', !!scale);
  const box = stack.getBoundingClientRect();
  one('.def-view').toggleAttribute(
    'data-beyond', box.width > pane.clientWidth + 1 || box.height > pane.clientHeight + 1);
  for (const moved of [pane, stack]) {  // the pane first: the picture is cut at its edges
    moved.style.left = moved.style.top = '';
    const edge = moved.getBoundingClientRect(), snap = v => (Math.floor(v * ratio + 0.05) - v * ratio) / ratio + 'px';
    if (scale) [moved.style.left, moved.style.top] = [snap(edge.left), snap(edge.top)];
  }
};

// Where a place of the picture, as shares, is seen: how far from the top left corner of the pane.
const seen = (x, y) => {
  const box = one('.def-stack').getBoundingClientRect(), pane = one('.def-pane').getBoundingClientRect();
  return [box.left - pane.left + x * box.width, box.top - pane.top + y * box.height];
};
const wide = () => [one('.def-pane').clientWidth, one('.def-pane').clientHeight];
const within = (place, i) => place[i] >= 0 && place[i] <= wide()[i];
// The lit place in the middle of the pane; where it was clicked, it does not run away from under the mouse.
const light = () => {
  const mark = one('.def-mark');
  if (!mark) return;
  const there = seen(parseFloat(mark.style.left) / 100, parseFloat(mark.style.top) / 100), size = wide();
  if ('KIND' === 'pointed' && within(there, 0) && within(there, 1)) return;
  one('.def-pane').scrollBy(there[0] - size[0] / 2, there[1] - size[1] / 2);
};
const zoom = level => {
  // what was in the middle stays there; of a comparison the divider stays where it is seen
  const before = wide(), [left, top] = seen(0, 0), [right, bottom] = seen(1, 1);
  let x = 0.5, kept = [(before[0] / 2 - left) / (right - left), (before[1] / 2 - top) / (bottom - top)];
  const line = seen(at / 100, 0);
  if (one('.def-before') && within(line, 0)) { kept[0] = at / 100; x = line[0] / before[0]; }
  kept = kept.map(v => Math.min(1, Math.max(0, v)));
  zoomed = level;
  fit();
  const there = seen(...kept), after = wide();
  one('.def-pane').scrollBy(there[0] - x * after[0], there[1] - after[1] / 2);
  light();
};
const divide = share => {
  at = Math.min(100, Math.max(0, share));
  one('.def-stack').style.setProperty('--at', at + '%');
  const range = one('.def-range');
  if (range) range.value = at;
};
// By keys and by the range below the divider may leave the pane: the picture follows.
const push = share => {
  divide(share);
  const line = seen(at / 100, 0);
  if (!within(line, 0)) one('.def-pane').scrollBy(line[0] - wide()[0] / 2, 0);
};
const share = e => {
  const box = one('.def-stack').getBoundingClientRect();
  return [(e.clientX - box.left) / box.width, (e.clientY - box.top) / box.height];
};
const inside = p => p.every(v => v >= 0 && v <= 1);

element.addEventListener('click', e => {
  const button = e.target.closest('button[data-zoom]');
  if (button) zoom(button.dataset.zoom);
  else if ('KIND' === 'pointed' && !held?.far && e.target.closest('.def-stack') && inside(share(e))) {
    cross = share(e); trigger('select', {x: cross[0], y: cross[1]});
  }
  held = null;
});
element.addEventListener('input', e => { if (e.target.matches('.def-range')) push(+e.target.value); });
// Pressed on the divider, or where all of the picture is seen: the divider follows. Elsewhere the picture does; under a
// finger the browser moves it itself.
element.addEventListener('pointerdown', e => {
  held = null;
  if (e.button || !e.target.closest('.def-stack')) return;
  const beyond = one('[data-beyond]'), divides = e.target.closest('.def-line') || (one('.def-before') && !beyond);
  if (!divides && (!beyond || e.pointerType === 'touch')) return;
  const {scrollLeft, scrollTop} = one('.def-pane');
  held = {divides, x: e.clientX + scrollLeft, y: e.clientY + scrollTop, from: [e.clientX, e.clientY], down: true};
  e.target.setPointerCapture(e.pointerId);
  if (divides && !beyond) divide(100 * share(e)[0]);
});
element.addEventListener('pointermove', e => {
  if (!held?.down || !one('.def-stack')) return;
  if (held.divides) divide(100 * share(e)[0]);
  else {
    held.far ||= Math.hypot(e.clientX - held.from[0], e.clientY - held.from[1]) > 4;
    if (held.far) one('.def-pane').scrollTo(held.x - e.clientX, held.y - e.clientY);
  }
});
for (const end of ['pointerup', 'pointercancel'])
  element.addEventListener(end, () => { if (held) held.down = false; });
element.addEventListener('keydown', e => {
  const way = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[e.key];
  if (!way || !e.target.matches('.def-pane')) return;
  const beyond = one('[data-beyond]');
  if ('KIND' === 'pointed') {
    const step = e.shiftKey ? 32 : 8;
    cross = cross.map((v, i) => Math.min(1, Math.max(0, v + way[i] * step / natural[i])));
    trigger('select', {x: cross[0], y: cross[1]});
  } else if (one('.def-range') && way[0] && (e.shiftKey || !beyond)) push(at + way[0] * (e.shiftKey ? 10 : 2));
  else if (beyond) e.target.scrollBy(...way.map(v => 60 * v));
  else return;
  e.preventDefault();
});
element.addEventListener('load', () => { fit(); if (one('.def-stack')) light(); }, true);
watch('value', () => { if (one('.def-stack')) { divide(at); fit(); light(); } });
// another window, or a tab that is opened
new ResizeObserver(() => {
  if (element.clientWidth !== room) { room = element.clientWidth; fit(); if (one('.def-stack')) light(); }
}).observe(element);
"""

DRAW = """
${!value ? `<p class="def-empty">EMPTY</p>` : `
<figure class="def-draw">
  <div class="def-bar">
    <label>Brush <input type="range" class="def-brush" min="2" max="25" value="8"></label>
    <button type="button" class="def-wipe">Wipe</button><span class="def-names">${value.names}</span>
  </div>
  <div class="def-stack def-canvas"><img draggable="false" src="${value.pictures[0].url}" alt="${value.alt}">
    ${value.drawing ? `<img class="def-drawn" hidden alt="" src="data:image/png;base64,${value.drawing}">` : ''}
    <canvas tabindex="0" role="application" aria-label="Drawing over: ${value.alt}. Arrow keys move the brush, the
      space bar puts it down or lifts it."></canvas><i class="def-tip" aria-hidden="true"></i></div>
  <p class="def-hint">By keys: arrows move the brush, the space bar puts it down or lifts it.</p>
</figure>`}
"""

DRAW_SCRIPT = """
let last = null, tip = [0.5, 0.5], down = false;
const one = s => element.querySelector(s);
const fresh = () => {
  const canvas = one('canvas'), image = one('img'), drawn = one('.def-drawn');
  if (!canvas || !image.naturalWidth) return;
  canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
  one('.def-canvas').style.width = `min(100%, ${60 * canvas.width / canvas.height}vh)`;
  if (drawn) canvas.getContext('2d').drawImage(drawn, 0, 0, canvas.width, canvas.height);
};
const place = e => {
  const canvas = one('canvas'), box = canvas.getBoundingClientRect();
  return [(e.clientX - box.left) * canvas.width / box.width, (e.clientY - box.top) * canvas.height / box.height];
};
const stroke = here => {
  const canvas = one('canvas'), pen = canvas.getContext('2d');
  pen.strokeStyle = 'INK'; pen.lineCap = pen.lineJoin = 'round';
  pen.lineWidth = canvas.width * one('.def-brush').value / 100;
  pen.beginPath(); pen.moveTo(...last); pen.lineTo(here[0] + 0.01, here[1]); pen.stroke();
  last = here;
};
element.addEventListener('pointerdown', e => {
  if (!e.target.matches('canvas')) return;
  last = place(e); stroke(last); e.target.setPointerCapture(e.pointerId); e.preventDefault();
});
element.addEventListener('pointermove', e => { if (last) stroke(place(e)); });
const tell = () => trigger('input', {drawing: one('canvas').toDataURL('image/png')});
element.addEventListener('pointerup', () => { if (last) { last = null; tell(); } });
element.addEventListener('keydown', e => {
  const way = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], ' ': [0, 0]}[e.key];
  if (!way || !e.target.matches('canvas')) return;
  e.preventDefault();
  const canvas = e.target, on = () => [tip[0] * canvas.width, tip[1] * canvas.height];
  if (e.key === ' ') down = !down;
  last = on();
  tip = tip.map((v, i) => Math.min(1, Math.max(0, v + way[i] * (e.shiftKey ? 0.1 : 0.02))));
  if (down) { stroke(on()); tell(); }
  last = null;
  const mark = one('.def-tip');
  mark.style.left = 100 * tip[0] + '%'; mark.style.top = 100 * tip[1] + '%';
  mark.style.width = one('.def-brush').value + '%'; mark.classList.toggle('def-down', down);
});
element.addEventListener('click', e => {
  if (e.target.matches('.def-wipe')) { one('.def-drawn')?.remove(); fresh(); trigger('input', {drawing: null}); }
});
element.addEventListener('load', fresh, true);
"""

CARDS = """
${value && value.length ? `<p class="def-label" role="status">TITLE${off && ` (${off})`}</p>
<ul class="def-cards">${value.map((card, i) => `
  <li><button type="button" class="def-card" aria-disabled="${!!off}" data-index="${i}" ${card.pressed === null ? '' :
    `aria-pressed="${card.pressed}"`} style="--frame: ${card.colour}">
    <img src="${card.picture.url}" alt="${card.alt}"><span>${card.lines.join('<br>')}</span></button></li>`).join('')}
</ul>` : ''}
"""

CARDS_SCRIPT = """
element.addEventListener('click', e => {
  const card = e.target.closest('.def-card'), own = document.body.dataset;
  if (!card || card.ariaDisabled === 'true' || ('ASK' && own.given && !confirm('ASK'))) return;
  if ('ASK') delete own.given;
  trigger('select', {index: +card.dataset.index});
});
"""

GIVEN = "() => { document.body.dataset.given = 'yes'; }"

FOLD = """<button type="button" aria-expanded="false">TITLE</button>"""

FOLD_SCRIPT = """
element.addEventListener('click', e => {
  const button = e.target.closest('button');
  if (button) button.ariaExpanded = String(button.ariaExpanded !== 'true');
});
"""


def photograph(**options: Any) -> gr.Image:
    """An image to upload, paste or take; what it hands out is the path of the uploaded file itself.

    The camera is the one that looks away from the visitor, at a size that is taken, and shows no mirror image.

    Gradio's own reading shows a server path where it fails. That the file is an upload was checked before. An event
    that has this among its outputs must always set it: what Gradio leaves unchanged it builds anew, without this.
    """
    component = gr.Image(
        type="filepath",
        format="png",
        image_mode=None,
        sources=["upload", "clipboard", "webcam"],
        webcam_options=gr.WebcamOptions(
            mirror=False, constraints={"video": {"width": 1024, "height": 768, "facingMode": "environment"}}
        ),
        **options,
    )
    component.preprocess = lambda payload: payload and payload.path
    return component


def viewer(empty: str, *, pointed: bool = False, **options: Any) -> gr.HTML:
    """A picture, or two with a divider; `empty` is said while there is none. Its value comes from `view`.

    With `pointed`, a click, or an arrow key, triggers `select` with the place as shares x and y.
    """
    return _component(VIEW, VIEW_SCRIPT, {"EMPTY": empty, "KIND": "pointed" if pointed else "plain"}, options)


def drawing(empty: str, ink: str, **options: Any) -> gr.HTML:
    """A picture to draw over; each stroke triggers `input` with the drawing as a data URL, None when wiped."""
    return _component(DRAW, DRAW_SCRIPT, {"EMPTY": empty, "INK": ink}, options)


def cards(title: str, ask: str = "", **options: Any) -> gr.HTML:
    """Pictures to choose from; a click, or Enter, triggers `select` with the index. Its value: a list of `card`.

    `gr.update(off="why")` lets none be chosen until it is "" again; the focus stays where it is. ask: what has to be
    answered first by a visitor who gave pictures of his own, see `GIVEN`.
    """
    return _component(CARDS, CARDS_SCRIPT, {"TITLE": title, "ASK": ask}, {"off": ""} | options)


@contextmanager
def fold(title: str) -> Iterator[None]:
    """A part of the page that opens and closes; closed at first.

    Gradio's Accordion builds its content only when it is first opened, and a frame later sets all of it back to what it
    was at first: on a machine where a frame takes long, what was typed or uploaded meanwhile was lost.
    """
    with gr.Column(elem_classes="def-fold"):
        _component(FOLD, FOLD_SCRIPT, {"TITLE": title}, {})
        with gr.Column(elem_classes="def-folded"):
            yield


def _component(template: str, script: str, words: dict[str, str], options: dict[str, Any]) -> gr.HTML:
    # Gradio has a place for such constants, but loses them in tabs that were never opened.
    for name, word in words.items():
        template, script = (text.replace(name, escape(word)) for text in (template, script))
    return gr.HTML(html_template=template, js_on_load=script, padding=False, **options)


def card(
    path: Path,
    lines: Sequence[str],
    *,
    alt: str = "",
    pressed: bool | None = None,
    colour: tuple[int, int, int] = (0, 0, 0),
) -> dict[str, Any]:
    """One picture with what is said below it. alt: of the picture, where not all of that is to be read twice. pressed:
    whether it is chosen, None where that is no question."""
    return {
        "picture": _file(path),
        "lines": [escape(line) for line in lines],
        "alt": escape(alt or ", ".join(lines)),
        "pressed": pressed,
        "colour": f"rgb{colour}",
    }


def view(
    path: Path | None,
    alt: str,
    *,
    caption: bool = True,
    before: tuple[Path, str] | None = None,
    mark: Mark | None = None,
    drawing: bytes | None = None,
) -> dict[str, Any] | None:
    """The value of a `viewer` or a `drawing`.

    caption: whether `alt` is also shown. before: the picture at the left of a divider, and what it is. drawing: PNG of
    what was drawn over the picture before.
    """
    if path is None:
        return None
    shown = ([] if before is None else [before[0]]) + [path]
    return {
        "pictures": [_file(p) for p in shown],
        "alt": escape(alt),
        "before": escape(before[1]) if before else "",
        "names": escape(f"{before[1]} ◂▸ {alt}" if before else alt if caption else ""),
        "mark": mark,
        "drawing": drawing and b64encode(drawing).decode(),
    }


def _file(path: Path) -> dict[str, Any]:
    """What Gradio copies to where the browser may fetch it, and gives a URL."""
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


def legend(entries: Sequence[tuple[str, tuple[int, int, int]]]) -> str:
    """Names beside their colours."""
    items = "".join(f"<li><i style='background: rgb{colour}'></i>{escape(name)}</li>" for name, colour in entries)
    return f"<ul class='def-legend'>{items}</ul>"
