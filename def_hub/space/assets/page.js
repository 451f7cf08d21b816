// What the browser does before the server answers. Gradio calls these by name; see page.py.
() => {
  const update = changes => ({__type__: 'update', ...changes});
  const waits = status => status?.state === 'waiting', busy = status => waits(status) || status?.state === 'running';
  const message = (state, html) => ({state, messages: [{kind: 'note', html}]});
  // [examples, history, start, preview, enlarge all, cancel, timer]
  const held = (off, waits) => [update({props: {off}}), update({props: {off}}),
    ...Array(3).fill(0).map(() => update({interactive: !waits})), update({interactive: waits}),
    update({active: waits})];
  const free = () => held('', false);

  window.defPage = {
    // held and status when a run or an example is asked for
    asked: off => [...held(off, true), message('waiting', 'Waiting for your turn …')],
    // held after a run; nothing changes where another one waits by now
    ended: status => waits(status) ? [] : free(),
    // held and status when Cancel is pressed; a run at work stops and says so itself
    left: (status, standing) => {
      if (!waits(status)) return [];
      const cancelled = message('cancelled', 'Cancelled. Nothing is computing any more.');
      return [...free(), standing?.stale ? {...cancelled, stale: standing.stale,
        messages: [standing.messages[0], ...cancelled.messages]} : cancelled];
    },
    // status when there is news of the result that is shown, or of the place in the queue; [] changes nothing
    stands: (standing, status) => busy(status) ? [] : [standing],
    placed: (place, status) => waits(status) && place ? [{...status, messages: place.messages}] : [],
    // The first value is the moment at which the button was pressed.
    stamped: (_, ...values) => [performance.now(), ...values],
    // Bring the comparison into sight with the status above it, from below on a long form and on a phone.
    show: () => {
      document.querySelector('#tabs [role=tab]').click();
      const status = document.querySelector('#status'), above = () => status.getBoundingClientRect().top < 0;
      const scroll = () => { if (innerWidth < 768 || above()) status.scrollIntoView({behavior: 'smooth'}); };
      setTimeout(scroll, 100);  // the status is being laid out
    },
  };

  // A picture, or a link to one, that is pasted is the photo; over the references, or while they have the focus, one of
  // these.
  document.addEventListener('paste', event => {
    if (event.target.matches?.('input:not([type=file]), textarea')) return;
    const files = [...event.clipboardData.files], text = event.clipboardData.getData('text/plain').trim();
    const detail = files.length ? {files: files.slice(0, 1)} : /^https?:\S+$/.test(text) ? {link: text} : null;
    if (!detail) return;
    event.preventDefault();
    const over = document.querySelector('#files .def-drop:is(:hover, :focus-within)');
    (over || document.querySelector('#photo .def-drop')).dispatchEvent(new CustomEvent('give', {detail, bubbles: true}));
  });
}
