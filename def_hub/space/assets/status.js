element.addEventListener('click', event => {
  if (event.target.matches('.def-dismiss')) trigger('clear', {});
});
