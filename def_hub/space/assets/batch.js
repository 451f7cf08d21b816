element.addEventListener('click', event => {
  if (event.target.closest('[data-close]')) trigger('clear', {});
});
