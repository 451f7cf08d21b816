// What a visitor has read does not come back.
let read;
element.addEventListener('click', event => {
  if (!event.target.matches('.def-dismiss')) return;
  read = props.value.number;
  trigger('clear', {});
});
watch('value', () => {
  if (props.value?.number && props.value.number === read) trigger('clear', {});
});
