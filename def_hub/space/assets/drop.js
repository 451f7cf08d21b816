// An area that takes pictures: dropped, chosen, pasted (also as a link), or from the camera. The server gets files only:
// a link is fetched by the browser.
const one = selector => element.querySelector(selector);
let said = '';
const say = words => { one('.def-drop-words').textContent = said = words; };

// Uploads end in any order. One that ends after a photo that was given later, or taken away, comes too late; of
// references none does.
let begun = 0, taken = 0;
const isLate = number => !'@MULTIPLE@' && number < taken;

const give = async (files, number = ++begun) => {
  const given = [], refused = [];
  if (!files.length) return;
  say('Uploading …');
  for (const file of files) {
    try {
      given.push({path: (await upload(file)).path, name: file.name});
    } catch (error) {
      refused.push(`${file.name} was not taken: ${error.message || error}`);
    }
  }
  if (isLate(number)) return;
  say(refused.join(' '));
  if (!given.length) return;
  taken = number;
  document.body.dataset.given = 'yes';
  trigger('upload', {files: given});
};

const fetched = async link => {
  const number = ++begun;
  say('Fetching the link …');
  try {
    const blob = await (await fetch(link)).blob();
    if (!blob.type.startsWith('image/')) throw new Error('no picture');
    const name = decodeURIComponent(new URL(link).pathname.split('/').pop()) || 'picture';
    await give([new File([blob], name, {type: blob.type})], number);
  } catch {
    if (isLate(number)) return;
    say('Your browser could not fetch a picture from this link. Save the picture and drop the file here.');
  }
};

const photographed = async () => {
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia(
      {video: {width: {ideal: 1024}, height: {ideal: 768}, facingMode: 'environment'}});
  } catch {
    return say('No camera can be used here.');
  }
  const dialog = document.createElement('dialog');
  dialog.className = 'def-camera';
  dialog.innerHTML = `<video autoplay playsinline muted></video>
    <button type="button" value="take">Take the photo</button> <button type="button" value="">Cancel</button>`;
  const video = dialog.querySelector('video');
  video.srcObject = stream;
  dialog.addEventListener('close', () => { stream.getTracks().forEach(track => track.stop()); dialog.remove(); });
  dialog.addEventListener('click', async event => {
    const button = event.target.closest('button');
    if (!button || (button.value && !video.videoWidth)) return;
    if (button.value) {
      const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
      canvas.getContext('2d').drawImage(video, 0, 0);
      give([new File([await canvas.convertToBlob({type: 'image/png'})], 'camera.png', {type: 'image/png'})]);
    }
    dialog.close();
  });
  (element.closest('.gradio-container') || document.body).append(dialog);
  dialog.showModal();
};

element.addEventListener('click', event => {
  const action = event.target.closest('[data-do]')?.dataset.do;
  if (action === 'choose') one('.def-file').click();
  if (action === 'camera') photographed();
  if (action === 'crop') trigger('edit', {});
  if (action === 'remove') {
    taken = ++begun;
    say('');
    trigger('clear', {});
  }
});
element.addEventListener('change', async event => {
  if (!event.target.matches('.def-file')) return;
  const files = [...event.target.files];
  event.target.value = '';  // the same file may be given again
  await give(files);
});
watch('value', () => say(said));  // the area is built anew: what could not be taken stays said until it is read
element.addEventListener('give', event => event.detail.link ? fetched(event.detail.link) : give(event.detail.files));
for (const kind of ['dragenter', 'dragover']) element.addEventListener(kind, event => {
  event.preventDefault();
  one('.def-drop').classList.add('def-over');
});
element.addEventListener('dragleave', () => one('.def-drop').classList.remove('def-over'));
element.addEventListener('drop', event => {
  event.preventDefault();
  one('.def-drop').classList.remove('def-over');
  const files = [...event.dataTransfer.files], link = event.dataTransfer.getData('text/uri-list');
  if (files.length) give('@MULTIPLE@' ? files : files.slice(0, 1));
  else if (link) fetched(link.split('\n')[0]);
});
