element.addEventListener('click', e => {
  const button = e.target.closest('button');
  if (button) button.ariaExpanded = String(button.ariaExpanded !== 'true');
});
