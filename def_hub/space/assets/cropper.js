// A dialog with a frame over a large photo. The frame is kept in pixels of the photo; it never has more than value.most.
let frame, held = null;
const one = selector => element.querySelector(selector);
const value = () => props.value;
const between = (low, number, high) => Math.min(Math.max(number, low), high);

const show = () => {
  const {size, scale, costs} = value(), {x, y, w, h} = frame, box = one('.def-frame').style;
  box.left = `${100 * x / size[0]}%`; box.top = `${100 * y / size[1]}%`;
  box.width = `${100 * w / size[0]}%`; box.height = `${100 * h / size[1]}%`;
  const cost = (costs.find(([pixels]) => pixels >= w * h) || costs.at(-1))[1];
  one('#def-crop-size').textContent = `${w}×${h} → ${scale * w}×${scale * h}, ${cost}`;
};
const move = (x, y) => {
  const [width, height] = value().size;
  frame.x = Math.round(between(0, x, width - frame.w));
  frame.y = Math.round(between(0, y, height - frame.h));
  show();
};
// Make the frame w×h, where one corner stays: (0, 0) is the upper left one, (1, 1) the lower right one.
const resize = (w, h, stays) => {
  const {size, most, least} = value(), fixed = [frame.x + stays[0] * frame.w, frame.y + stays[1] * frame.h];
  const room = fixed.map((at, axis) => stays[axis] ? at : size[axis] - at);
  w = between(least, w, room[0]); h = between(least, h, room[1]);
  if (w * h > most) {  // the side that grew gives way
    if (w - frame.w > h - frame.h) w = Math.max(most / h, least); else h = Math.max(most / w, least);
    const over = Math.max(Math.sqrt(w * h / most), 1);
    w /= over; h /= over;
  }
  w = Math.floor(w); h = Math.floor(h);
  frame = {w, h, x: Math.round(fixed[0] - stays[0] * w), y: Math.round(fixed[1] - stays[1] * h)};
  show();
};
// The photo as large as there is room for it; a small one's pixels become visible.
const fit = () => {
  const image = one('.def-crop-stack img'), tall = parseFloat(getComputedStyle(image).maxHeight);
  const zoom = Math.min(one('.def-crop p').clientWidth / image.naturalWidth, tall / image.naturalHeight, 8);
  image.style.width = `${zoom * image.naturalWidth}px`;
  image.toggleAttribute('data-small', zoom > 1);
};
const opened = () => {
  const dialog = one('dialog'), {size: [width, height], most} = value();
  const part = Math.min(1, Math.sqrt(most / (width * height)));
  const w = Math.floor(width * part), h = Math.floor(height * part);
  frame = {w, h, x: Math.round((width - w) / 2), y: Math.round((height - h) / 2)};
  show();
  if (!dialog.open) dialog.showModal();
  fit();
  one('.def-frame').focus();
  dialog.addEventListener('cancel', () => trigger('clear', {}));  // Escape
};

element.addEventListener('load', opened, true);
element.addEventListener('pointerdown', event => {
  const target = event.target.closest('.def-frame');
  if (!target) return;
  held = {at: [event.clientX, event.clientY], from: {...frame}, corner: event.target.dataset.corner?.split(',').map(Number)};
  target.setPointerCapture(event.pointerId);
  target.focus();
  event.preventDefault();
});
element.addEventListener('pointermove', event => {
  if (!held) return;
  const {at, from, corner} = held, pixel = value().size[0] / one('.def-crop-stack img').clientWidth;
  const [x, y] = [(event.clientX - at[0]) * pixel, (event.clientY - at[1]) * pixel];
  if (!corner) return move(from.x + x, from.y + y);
  frame = {...from};
  resize(from.w + (corner[0] ? x : -x), from.h + (corner[1] ? y : -y), corner.map(side => 1 - side));
});
for (const kind of ['pointerup', 'pointercancel']) element.addEventListener(kind, () => { held = null; });
element.addEventListener('keydown', event => {
  const way = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
  if (!way || !event.target.matches('.def-frame')) return;
  event.preventDefault();
  const step = Math.max(1, Math.round(Math.max(...value().size) / 100)), [x, y] = way.map(side => side * step);
  if (event.shiftKey) resize(frame.w + x, frame.h + y, [0, 0]); else move(frame.x + x, frame.y + y);
});
element.addEventListener('click', event => {
  const action = event.target.closest('[data-do]')?.dataset.do;
  if (!action) return;
  one('dialog').close();
  if (action === 'cancel') return trigger('clear', {});
  trigger('submit', action === 'whole' ? {whole: true} : {crop: `${frame.w}x${frame.h}+${frame.x}+${frame.y}`});
});
