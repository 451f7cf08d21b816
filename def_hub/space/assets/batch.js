// The photos are given further down than the table is.
let seen = false;
watch('value', () => {
  const table = element.querySelector('.def-batch');
  if (table && !seen) table.scrollIntoView({block: 'nearest'});
  seen = !!table;
});
element.addEventListener('click', event => {
  if (event.target.closest('[data-close]')) trigger('clear', {});
});
