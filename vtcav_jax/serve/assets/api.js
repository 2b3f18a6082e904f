// Requests to the server. When it does not answer, the page says so, and asks again until it does.
import {by} from './dom.js';

const QUIET_MS = 400; // before "loading" appears
let restart = 'vtcav serve', pending = 0, timer = 0, gone = '';
const waiters = new Set();

export function setRestartCommand(command) { restart = command + ' --port=' + location.port; }
export const isGone = () => gone !== '';
// Call `update` when the server is back, and when it goes.
export function onConnection(update) { waiters.add(update); }
let unsaved = () => 0;
export function countUnsaved(count) { unsaved = count; }

function setGone(reason) {
  const before = gone;
  gone = reason;
  showConnection();
  if (before !== gone && (before === '' || gone === '')) for (const update of waiters) update(gone === '');
}

export function showConnection() {
  const n = unsaved();
  const kept = n ? `${n} unsaved ${n === 1 ? 'verdict is' : 'verdicts are'} kept and sent when it is back.` : '';
  by('gone').hidden = !gone;
  by('gone').textContent = {
    silent: `The server is gone; restart it with: ${restart}\n${kept}`,
    token: `The server was restarted; open the address that it printed in this browser.\n${kept}`,
  }[gone] ?? '';
}

function showBusy(change) {
  pending += change;
  clearTimeout(timer);
  if (!pending) by('busy').textContent = '';
  else timer = setTimeout(() => { by('busy').textContent = 'loading …'; }, QUIET_MS);
}

async function request(path, options) {
  showBusy(1);
  try {
    let response;
    try {
      response = await fetch(path, {credentials: 'same-origin', ...options});
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      setGone('silent');
      throw new Error('the server does not answer');
    }
    if (response.status === 403) {
      setGone('token');
      throw new Error('the server was restarted');
    }
    if (gone) setGone('');
    if (response.ok) return response;
    const answer = await response.json().catch(() => ({}));
    const error = new Error(answer.error || `the server answered ${response.status}`);
    error.status = response.status;
    throw error;
  } finally {
    showBusy(-1);
  }
}

const withQuery = (name, query) => '/api/' + name + '?' + new URLSearchParams(query);

export const get = async (name, query = {}, signal) => (await request(withQuery(name, query), {signal})).json();

export const post = async (name, body) => (await request('/api/' + name, {
  method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify(body)})).json();

// A picture with all frames of a film, and its layout.
export async function getFilm(name, query, signal) {
  const response = await request(withQuery(name, query), {signal});
  const layout = JSON.parse(response.headers.get('X-Film'));
  return {...layout, image: await createImageBitmap(await response.blob())};
}

export const pictureAddress = withQuery;

export function drawFrame(context, film, frame, x, y, width, height) {
  const i = Math.max(0, Math.min(film.frames - 1, frame));
  const left = (i % film.columns) * film.width, top = Math.floor(i / film.columns) * film.height;
  context.drawImage(film.image, left, top, film.width, film.height, x, y, width, height);
}

// The latest of several calls counts: earlier ones are cancelled and do not answer.
export function latest(load) {
  let controller = null;
  return async (...values) => {
    controller?.abort();
    const mine = controller = new AbortController();
    try {
      return await load(mine.signal, ...values);
    } catch (error) {
      if (error.name === 'AbortError' || mine.signal.aborted) return undefined;
      throw error;
    }
  };
}
