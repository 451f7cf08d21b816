let zoomed = 'fit', at = 50, opacity = 60, cross = [0.5, 0.5], natural = null, room = 0, held = null;
const one = s => element.querySelector(s);

// Fit: by the largest whole number that fits, at most 4, where the browser would not show it larger than that.
const whole = pane => {
  const share = Math.min(pane.clientWidth / natural[0], parseFloat(getComputedStyle(pane).maxHeight) / natural[1]);
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
  if ('@KIND@' === 'pointed' && within(there, 0) && within(there, 1)) return;
  one('.def-pane').scrollBy(there[0] - size[0] / 2, there[1] - size[1] / 2);
};
const zoom = (level, place) => {
  // the place that is pointed at stays where it is; else the middle, and of a comparison the divider
  const before = wide(), [left, top] = seen(0, 0), [right, bottom] = seen(1, 1);
  let goal = [0.5, 0.5], kept = [(before[0] / 2 - left) / (right - left), (before[1] / 2 - top) / (bottom - top)];
  const line = seen(at / 100, 0);
  if (place) {
    const box = one('.def-pane').getBoundingClientRect();
    goal = [(place.clientX - box.left) / before[0], (place.clientY - box.top) / before[1]];
    kept = share(place);
  } else if (one('.def-before') && within(line, 0)) { kept[0] = at / 100; goal[0] = line[0] / before[0]; }
  kept = kept.map(v => Math.min(1, Math.max(0, v)));
  zoomed = level;
  fit();
  const there = seen(...kept), after = wide();
  one('.def-pane').scrollBy(there[0] - goal[0] * after[0], there[1] - goal[1] * after[1]);
  if (!place) light();
};
const LEVELS = ['fit', '1', '2', '4'];
const step = (way, place) => zoom(LEVELS[Math.min(3, Math.max(0, LEVELS.indexOf(zoomed) + way))], place);
const divide = share => {
  at = Math.min(100, Math.max(0, share));
  one('.def-stack').style.setProperty('--at', at + '%');
  const range = one('.def-range:not([data-veil])');
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
  else if ('@KIND@' === 'pointed' && !held?.far && e.target.closest('.def-stack') && inside(share(e))) {
    cross = share(e); trigger('select', {x: cross[0], y: cross[1]});
  }
  held = null;
});
// How much the veil covers; it stays when another picture comes.
const veil = () => {
  const range = one('[data-veil]');
  if (!range) return;
  range.value = opacity;
  one('.def-veil').style.opacity = opacity / 100;
};
element.addEventListener('click', e => {
  if (!e.target.closest('[data-full]')) return;
  if (document.fullscreenElement) document.exitFullscreen();
  else one('.def-view').requestFullscreen();
});
element.addEventListener('fullscreenchange', () => setTimeout(fit, 50));  // when the window has its new size
// A double click zooms to 200 % and back; the wheel zooms in full screen, and elsewhere with Ctrl; two fingers do, too.
element.addEventListener('dblclick', e => {
  if ('@KIND@' !== 'pointed' && e.target.closest('.def-stack')) zoom(zoomed === 'fit' ? '2' : 'fit', e);
});
let turned = 0;
element.addEventListener('wheel', e => {
  if (!one('.def-stack') || !e.target.closest('.def-pane') || !(document.fullscreenElement || e.ctrlKey)) return;
  e.preventDefault();
  turned += e.deltaY;
  if (Math.abs(turned) < 50) return;
  step(turned < 0 ? 1 : -1, e);
  turned = 0;
}, {passive: false});
let apart = null;
const distance = ([a, b]) => Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
element.addEventListener('touchstart', e => { apart = e.touches.length === 2 ? distance(e.touches) : null; });
element.addEventListener('touchmove', e => {
  if (!apart || e.touches.length !== 2 || !e.target.closest('.def-stack')) return;
  e.preventDefault();
  const ratio = distance(e.touches) / apart;
  if (ratio > 0.7 && ratio < 1.4) return;
  const [a, b] = e.touches;
  step(ratio > 1 ? 1 : -1, {clientX: (a.clientX + b.clientX) / 2, clientY: (a.clientY + b.clientY) / 2});
  apart = distance(e.touches);
}, {passive: false});
element.addEventListener('input', e => {
  if (e.target.matches('[data-veil]')) { opacity = +e.target.value; veil(); }
  else if (e.target.matches('.def-range')) push(+e.target.value);
});
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
  if ('@KIND@' === 'pointed') {
    const step = e.shiftKey ? 32 : 8;
    cross = cross.map((v, i) => Math.min(1, Math.max(0, v + way[i] * step / natural[i])));
    trigger('select', {x: cross[0], y: cross[1]});
  } else if (one('.def-before') && way[0] && (e.shiftKey || !beyond)) push(at + way[0] * (e.shiftKey ? 10 : 2));
  else if (beyond) e.target.scrollBy(...way.map(v => 60 * v));
  else return;
  e.preventDefault();
});
// Where the result of an example opens: zoomed, with the divider at the place. Once: the visitor goes on from there.
let looked = '', aim = null;
// In the middle of the window, also after the window's size has changed, until the visitor moves anything.
const keep = () => {
  if (!aim) return;
  const there = seen(...aim), size = wide();
  one('.def-pane').scrollBy(there[0] - size[0] / 2, there[1] - size[1] / 2);
};
for (const kind of ['pointerdown', 'wheel', 'keydown']) element.addEventListener(kind, () => aim = null, true);
const look = () => {
  const place = props.value?.look_at, now = place ? place.join() : '';
  if (now === looked || !natural || !one('.def-pane').clientWidth) return;
  looked = now;
  divide(place ? 100 * place[0] : 50);
  zoomed = 'fit';
  aim = null;
  fit();
  if (!place) return;
  const shown = one('.def-stack').getBoundingClientRect().width * devicePixelRatio / natural[0];
  zoomed = LEVELS.slice(1).find(level => +level >= 1.6 * shown) ?? '4';
  fit();
  aim = place;
  keep();
};
element.addEventListener('load', event => {
  fit();
  if (one('.def-stack')) { keep(); light(); }
  if (event.target.matches('.def-after')) look();
}, true);
watch('value', () => {
  if (one('.def-stack')) { divide(at); fit(); keep(); veil(); light(); }
  else looked = null;
});
// another window, or a tab that is opened
new ResizeObserver(() => {
  if (element.clientWidth !== room) { room = element.clientWidth; fit(); if (one('.def-stack')) { keep(); light(); } }
}).observe(element);
