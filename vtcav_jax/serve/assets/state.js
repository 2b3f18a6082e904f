// State of the view: all of it is in the address, so that a link or a reload shows the same.
const DEFAULTS = {view: 'clips', run: '', task: '', target: '', stage: '', vector: '', clip: '', part: 0, frame: 0,
  show: 'map', map: '', mapTarget: '', measure: '', sort: 'down', answers: 'all', text: '', min: '', max: '', page: 0,
  list: 'all', step: 0, folder: '', concept: '', cards: 0};
const NUMBERS = ['part', 'frame', 'page', 'step', 'cards'];

export const state = {...DEFAULTS};
const watchers = [];
let scheduled = false;
const changed = new Set();

// Take the state from the address; what it does not say is taken from `start`.
export function readAddress(start) {
  const query = new URLSearchParams(location.search);
  Object.assign(state, query.size ? {} : start);
  for (const [name, value] of query) {
    if (!(name in DEFAULTS)) continue;
    state[name] = NUMBERS.includes(name) ? (Number.isFinite(Number(value)) ? Number(value) : 0) : value;
  }
}

export function address() {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(state)) if (value !== DEFAULTS[name]) query.set(name, value);
  return '/' + (query.size ? '?' + query : '');
}

// Call `update` once for any changes of these names.
export function watch(names, update) { watchers.push([names, update]); }

export function change(values) {
  for (const [name, value] of Object.entries(values)) {
    if (state[name] === value) continue;
    state[name] = value;
    changed.add(name);
  }
  if (!changed.size || scheduled) return;
  scheduled = true;
  queueMicrotask(flush);
}

export function flush() {
  scheduled = false;
  const names = [...changed];
  changed.clear();
  saveAddress();
  for (const [watched, update] of watchers) if (names.some(name => watched.includes(name))) update(names);
}

const SAVE_MS = 120;
let saving = 0, saved = 0;
// Browsers limit how often the address may change: while a film plays, it follows with a delay.
function saveAddress() {
  clearTimeout(saving);
  if (performance.now() - saved > SAVE_MS) saveAddressNow();
  else saving = setTimeout(saveAddressNow, SAVE_MS);
}
export function saveAddressNow() {
  clearTimeout(saving);
  saved = performance.now();
  history.replaceState(null, '', address());
}
addEventListener('pagehide', saveAddressNow);
