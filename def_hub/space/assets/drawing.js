let last = null, tip = [0.5, 0.5], down = false, before = [];
const one = s => element.querySelector(s);
const fresh = () => {
  const canvas = one('canvas'), image = one('img'), drawn = one('.def-drawn');
  if (!canvas || !image.naturalWidth) return;
  canvas.width = image.naturalWidth; canvas.height = image.naturalHeight;
  one('.def-canvas').style.width = `min(100%, ${60 * canvas.width / canvas.height}vh)`;
  if (drawn) canvas.getContext('2d').drawImage(drawn, 0, 0, canvas.width, canvas.height);
  before = [];
};
// Each stroke can be undone, back to when this picture came.
const remember = () => {
  const canvas = one('canvas');
  before.push(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height));
  if (before.length > 20) before.shift();
};
const place = e => {
  const canvas = one('canvas'), box = canvas.getBoundingClientRect();
  return [(e.clientX - box.left) * canvas.width / box.width, (e.clientY - box.top) * canvas.height / box.height];
};
const stroke = here => {
  const canvas = one('canvas'), pen = canvas.getContext('2d');
  pen.strokeStyle = '@INK@'; pen.lineCap = pen.lineJoin = 'round';
  pen.lineWidth = canvas.width * one('.def-brush').value / 100;
  pen.beginPath(); pen.moveTo(...last); pen.lineTo(here[0] + 0.01, here[1]); pen.stroke();
  last = here;
};
element.addEventListener('pointerdown', e => {
  if (!e.target.matches('canvas')) return;
  remember(); last = place(e); stroke(last); e.target.setPointerCapture(e.pointerId); e.preventDefault();
});
element.addEventListener('pointermove', e => { if (last) stroke(place(e)); });
const tell = () => trigger('input', {drawing: one('canvas').toDataURL('image/png')});
element.addEventListener('pointerup', () => { if (last) { last = null; tell(); } });
element.addEventListener('keydown', e => {
  const way = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1], ' ': [0, 0]}[e.key];
  if (!way || !e.target.matches('canvas')) return;
  e.preventDefault();
  const canvas = e.target, on = () => [tip[0] * canvas.width, tip[1] * canvas.height];
  if (e.key === ' ') { down = !down; if (down) remember(); }
  last = on();
  tip = tip.map((v, i) => Math.min(1, Math.max(0, v + way[i] * (e.shiftKey ? 0.1 : 0.02))));
  if (down) { stroke(on()); tell(); }
  last = null;
  const mark = one('.def-tip');
  mark.style.left = 100 * tip[0] + '%'; mark.style.top = 100 * tip[1] + '%';
  mark.style.width = one('.def-brush').value + '%'; mark.classList.toggle('def-down', down);
});
element.addEventListener('click', e => {
  if (e.target.matches('.def-undo') && before.length) {
    one('canvas').getContext('2d').putImageData(before.pop(), 0, 0);
    tell();
  }
  if (e.target.matches('.def-wipe')) { one('.def-drawn')?.remove(); fresh(); trigger('input', {drawing: null}); }
});
element.addEventListener('load', fresh, true);
