// A click on the photo, or an arrow key, chooses the part; the buttons a preset.
const photo = () => element.querySelector('.def-preview-photo');
const aim = place => {
  const at = place.map(v => Math.min(1, Math.max(0, v)));
  trigger('select', {x: at[0], y: at[1]});
};
element.addEventListener('click', event => {
  const use = event.target.closest('[data-use]');
  if (use) return trigger('input', {preset: use.dataset.use});
  if (event.target.closest('[data-close]')) return trigger('clear', {});
  if (!event.target.closest('.def-preview-photo')) return;
  const box = photo().getBoundingClientRect();
  aim([(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height]);
});
element.addEventListener('keydown', event => {
  const way = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]}[event.key];
  if (!way || !event.target.matches('[role=application]')) return;
  event.preventDefault();
  aim(props.value.at.map((v, i) => v + way[i] * props.value.frame[i ? 'height' : 'width'] / 200));
});
