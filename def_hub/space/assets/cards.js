element.addEventListener('click', event => {
  const remove = event.target.closest('.def-remove');
  if (remove) return trigger('delete', {index: +remove.dataset.index});
  const card = event.target.closest('.def-card'), own = document.body.dataset;
  if (!card || card.ariaDisabled === 'true' || ('@ASK@' && own.given && !confirm('@ASK@'))) return;
  if ('@ASK@') delete own.given;
  trigger('select', {index: +card.dataset.index});
});
