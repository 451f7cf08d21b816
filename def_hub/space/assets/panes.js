// Every picture is laid out by one view: the place of the result in the middle of each window, and pixels of the screen
// per pixel of the result. The reference lies as its matches say.
let x = 0.5, y = 0.5, zoom = 1;
const touches = new Map();
const one = s => element.querySelector(s), all = s => [...element.querySelectorAll(s)];
const size = () => props.value.size;
const clamp = v => Math.min(1, Math.max(0, v));
const fitting = () => {
  const pane = one('.def-window');
  return Math.min(pane.clientWidth / size()[0], pane.clientHeight / size()[1]);
};
const lay = (image, matrix, place, pane) => {
  const [a, b, c, d] = matrix, middle = [pane.clientWidth / 2, pane.clientHeight / 2];
  const left = middle[0] - a * place[0] - c * place[1], top = middle[1] - b * place[0] - d * place[1];
  image.style.transform = `matrix(${a}, ${b}, ${c}, ${d}, ${left}, ${top})`;
};
// The trusted match that is nearest to the middle, a few cells away at most.
const match = () => {
  const {rows, columns, cells} = props.value.grid, row = y * rows - 0.5, column = x * columns - 0.5;
  let best = null, least = 9;
  cells.forEach((cell, i) => {
    const far = (Math.floor(i / columns) - row) ** 2 + (i % columns - column) ** 2;
    if (cell && far < least) [best, least] = [{cell, column: i % columns, row: Math.floor(i / columns)}, far];
  });
  return best;
};
const layReference = () => {
  const figure = one('[data-reference]');
  if (!figure) return;
  const found = match(), images = [...figure.querySelectorAll('img')];
  figure.querySelector('p').hidden = !!found;
  images.forEach((image, i) => { image.hidden = !found || i !== found.cell[0]; });
  figure.querySelector('figcaption').textContent = found ? `Reference ${found.cell[0] + 1}` : 'Reference';
  if (!found) return;
  const [number, u, v] = found.cell, {size: own, frame: [a, b, c, d]} = props.value.references[number];
  const {rows, columns} = props.value.grid, area = a * d - b * c;
  const away = [(x - (found.column + 0.5) / columns) * size()[0], (y - (found.row + 0.5) / rows) * size()[1]];
  const place = [u * own[0] + a * away[0] + c * away[1], v * own[1] + b * away[0] + d * away[1]];
  images[number].style.width = own[0] + 'px';
  images[number].style.height = own[1] + 'px';
  lay(images[number], [d, -b, -c, a].map(value => zoom * value / area), place, figure.querySelector('.def-window'));
};
const draw = () => {
  if (!one('dialog')?.open) return;
  for (const image of all('figure:not([data-reference]) img')) {
    [image.style.width, image.style.height] = size().map(n => n + 'px');
    image.style.imageRendering = zoom >= 1 ? 'pixelated' : 'auto';
    lay(image, [zoom, 0, 0, zoom], [x * size()[0], y * size()[1]], image.parentElement);
  }
  layReference();
  one('.def-panes-grid').dataset.zoom = zoom.toFixed(3);
  one('.def-panes-grid').dataset.at = `${x.toFixed(3)} ${y.toFixed(3)}`;
};
const move = (right, down) => {
  x = clamp(x + right / (zoom * size()[0]));
  y = clamp(y + down / (zoom * size()[1]));
  draw();
};
// The place under the pointer stays under it.
const zoomTo = (next, event) => {
  next = Math.min(16, Math.max(fitting(), next));
  const box = event?.target.closest?.('.def-window')?.getBoundingClientRect();
  if (box) {
    const away = [event.clientX - box.left - box.width / 2, event.clientY - box.top - box.height / 2];
    x = clamp(x + away[0] * (1 / zoom - 1 / next) / size()[0]);
    y = clamp(y + away[1] * (1 / zoom - 1 / next) / size()[1]);
  }
  zoom = next;
  draw();
};
const fit = () => { x = y = 0.5; zoom = fitting(); draw(); };
const close = () => { if (document.fullscreenElement) document.exitFullscreen(); one('dialog')?.close(); };

element.addEventListener('click', event => {
  if (event.target.closest('[data-open]')) {
    one('dialog').showModal();
    fit();
    one('.def-panes-grid').focus();
    // Not everywhere there is a full screen; the dialog fills the window anyway.
    one('.def-panes').requestFullscreen?.().catch(() => {});
  }
  if (event.target.closest('[data-close]')) close();
  const button = event.target.closest('[data-zoom]:not(.def-panes-grid)');
  if (button) button.dataset.zoom === 'fit' ? fit() : zoomTo(button.dataset.zoom / devicePixelRatio);
});
element.addEventListener('fullscreenchange', () => {
  if (!document.fullscreenElement) one('dialog')?.close();
  else fit();
});
element.addEventListener('wheel', event => {
  if (!event.target.closest('.def-panes-grid')) return;
  event.preventDefault();
  zoomTo(zoom * 2 ** (-event.deltaY / 240), event);
}, {passive: false});
element.addEventListener('dblclick', event => {
  if (!event.target.closest('.def-window')) return;
  zoom > 1.01 * fitting() ? fit() : zoomTo(Math.max(2, 2 * fitting()), event);
});
element.addEventListener('pointerdown', event => {
  if (!event.target.closest('.def-window')) return;
  touches.set(event.pointerId, event);
  event.target.setPointerCapture(event.pointerId);
});
element.addEventListener('pointermove', event => {
  const before = touches.get(event.pointerId);
  if (!before) return;
  const other = [...touches].find(([id]) => id !== event.pointerId)?.[1];
  touches.set(event.pointerId, event);
  if (!other) return move(before.clientX - event.clientX, before.clientY - event.clientY);
  const far = e => Math.hypot(e.clientX - other.clientX, e.clientY - other.clientY);
  const middle = {target: event.target, clientX: (event.clientX + other.clientX) / 2,
    clientY: (event.clientY + other.clientY) / 2};
  if (far(before) > 0) zoomTo(zoom * far(event) / far(before), middle);
});
for (const end of ['pointerup', 'pointercancel']) element.addEventListener(end, event => touches.delete(event.pointerId));
element.addEventListener('keydown', event => {
  if (!event.target.matches('.def-panes-grid')) return;
  const way = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
  if (way) move(60 * way[0], 60 * way[1]);
  else if (event.key === '+' || event.key === '=') zoomTo(1.25 * zoom);
  else if (event.key === '-') zoomTo(zoom / 1.25);
  else if (event.key === '0') fit();
  else return;
  event.preventDefault();
});
addEventListener('resize', draw);
