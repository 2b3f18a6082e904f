// The list of clips: a page at a time, sorted and filtered by a number, or the clips similar to one.
import {get, latest, pictureAddress} from './api.js';
import {by, colour, fillMenu, format, make, sized} from './dom.js';
import {clipKey, noteClick} from './player.js';
import {change, state, watch} from './state.js';

let listed = null, similarTo = '', choiceOnPage = null; // the clip to choose when the next page is there
const place = () => ({run: state.run, task: state.task, target: state.target, stage: state.stage, vector: state.vector,
  map: state.task === 'attribute' ? state.map : '', measure: state.measure});

const load = latest(async signal => {
  if (state.list === 'similar') {
    similarTo = state.clip;
    return get('similar', {...place(), ...clipKey()}, signal);
  }
  return get('clips', {...place(), sort: state.sort, answers: state.answers, text: state.text, min: state.min,
    max: state.max, page: state.page}, signal);
});

export async function updateList() {
  if (!state.run || !state.target) return;
  try {
    const answer = await load();
    if (!answer) return;
    listed = answer;
  } catch (error) {
    by('pages').textContent = error.message;
    return;
  }
  const similar = state.list === 'similar';
  by('filters').hidden = similar;
  by('list-title').textContent = similar ? 'Similar to ' + similarTo : `Clips by ${listed.label}`;
  by('list-title').title = similar ? 'root mean square difference of: ' + listed.basis : '';
  by('similar').textContent = similar ? 'All clips' : 'Similar clips';
  by('cards').replaceChildren(...listed.clips.map(card));
  if (similar) {
    by('pages').textContent = `by ${listed.basis}`;
  } else {
    const first = listed.page * 24 + 1, last = first + listed.clips.length - 1;
    by('pages').textContent = (listed.total ? `${first} to ${last} of ${listed.total}` : 'no clips') +
      (listed.total < listed.all ? ` (${listed.all} without the filter)` : '');
    if (listed.page !== state.page) change({page: listed.page});
  }
  by('previous').disabled = similar || listed.page === 0;
  by('next').disabled = similar || listed.page + 1 >= listed.pages;
  by('previous').hidden = by('next').hidden = similar;
  drawHistogram();
  if (choiceOnPage !== null) choose(listed.clips.at(choiceOnPage));
  else if (!state.clip && listed.clips.length) choose(listed.clips[0]);
  choiceOnPage = null;
  markCurrent();
  document.body.dataset.list = [state.list, state.target, state.stage, state.vector, state.page].join('#');
}

function card(clip) {
  const button = make('button', 'card');
  button.type = 'button';
  button.clip = clip;
  const image = make('img');
  image.loading = 'lazy';
  image.alt = '';
  image.addEventListener('load', () => { if (image.naturalWidth > 64) image.style.imageRendering = 'auto'; });
  image.addEventListener('error', () => { image.style.visibility = 'hidden'; }); // the network cannot be loaded
  image.src = pictureAddress('thumbnail', {run: state.run, task: state.task, clip: clip.clip, part: clip.part});
  const name = clip.clip + (clip.part ? ' #' + (clip.part + 1) : '');
  button.append(image, make('span', 'value', format(clip.value)), make('span', '', name));
  button.setAttribute('aria-label', `${name}, ${state.list === 'similar' ? 'distance' : listed.label} ${format(clip.value)}`);
  button.title = name;
  button.addEventListener('click', () => choose(clip));
  return button;
}

function choose(clip) {
  noteClick();
  change({clip: clip.clip, part: clip.part, frame: 0});
}

function markCurrent() {
  for (const button of by('cards').children) {
    const current = button.clip.clip === state.clip && button.clip.part === state.part;
    button.setAttribute('aria-current', current);
  }
}

// Choose the next or previous clip of the list, also on the page after or before.
export function step(by_) {
  if (!listed?.clips.length) return;
  const i = listed.clips.findIndex(clip => clip.clip === state.clip && clip.part === state.part) + by_;
  if (i >= 0 && i < listed.clips.length) return choose(listed.clips[i]);
  if (turnPage(by_)) choiceOnPage = by_ > 0 ? 0 : -1;
}

export function turnPage(by_) {
  if (!listed || state.list !== 'all') return false;
  const page = state.page + by_;
  if (page < 0 || page >= listed.pages) return false;
  change({page});
  return true;
}

export const toggleSimilar = () => change({list: state.list === 'similar' ? 'all' : 'similar'});

function drawHistogram() {
  const shape = listed?.histogram;
  if (state.list === 'similar' || !shape) return;
  const [context, width, height] = sized(by('histogram'), 34);
  const most = Math.max(...shape.counts, 1), bar = width / shape.counts.length;
  const span = shape.high - shape.low || 1;
  const low = state.min === '' ? -Infinity : Number(state.min), high = state.max === '' ? Infinity : Number(state.max);
  shape.counts.forEach((count, i) => {
    const middle = shape.low + (i + 0.5) * span / shape.counts.length;
    context.fillStyle = colour(middle >= low && middle <= high ? 'one' : 'faint');
    const size = count ? Math.max(2, (height - 12) * count / most) : 0;
    context.fillRect(i * bar, height - 12 - size, bar - 1, size);
  });
  context.fillStyle = colour('soft');
  context.font = '10px system-ui, sans-serif';
  context.fillText(format(shape.low), 0, height - 2);
  const text = format(shape.high);
  context.fillText(text, width - context.measureText(text).width, height - 2);
}

// Drag over the histogram to keep a range of values; a click without a drag keeps all.
function followHistogram() {
  const canvas = by('histogram');
  let from = null;
  const valueAt = event => {
    const box = canvas.getBoundingClientRect(), shape = listed.histogram;
    const share = Math.max(0, Math.min(1, (event.clientX - box.left) / box.width));
    return shape.low + share * (shape.high - shape.low);
  };
  canvas.addEventListener('pointerdown', event => {
    if (!listed?.histogram) return;
    canvas.setPointerCapture(event.pointerId);
    from = [event.clientX, valueAt(event)];
  });
  canvas.addEventListener('pointerup', event => {
    if (from === null) return;
    const ends = [from[1], valueAt(event)].sort((a, b) => a - b);
    const moved = Math.abs(event.clientX - from[0]) > 3;
    from = null;
    change({min: moved ? ends[0].toPrecision(4) : '', max: moved ? ends[1].toPrecision(4) : '', page: 0});
  });
}

export function fillMeasures(measures) {
  const entries = measures.map(m => [m.name, m.name === 'effect' ? 'effect of the concept' : m.label]);
  fillMenu(by('measure'), entries, state.measure);
}

function showFilters() {
  if (state.answers !== 'all' || state.text || state.min || state.max) by('more-filters').open = true;
  for (const name of ['sort', 'answers', 'text', 'min', 'max'])
    if (by(name) !== document.activeElement) by(name).value = state[name];
  if (state.measure) by('measure').value = state.measure;
}

export function startList() {
  watch(['run', 'task', 'target', 'stage', 'vector', 'measure', 'sort', 'answers', 'text', 'min', 'max', 'page', 'list'],
    updateList);
  watch(['map'], () => { if (state.task === 'attribute') updateList(); });
  watch(['clip', 'part'], markCurrent);
  watch(['sort', 'answers', 'text', 'min', 'max', 'measure'], showFilters);
  for (const name of ['sort', 'answers', 'measure'])
    by(name).addEventListener('change', () => change({[name]: by(name).value, page: 0}));
  let typing = 0;
  for (const name of ['text', 'min', 'max']) {
    by(name).addEventListener('input', () => {
      clearTimeout(typing);
      typing = setTimeout(() => change({[name]: by(name).value, page: 0}), 250);
    });
  }
  by('previous').addEventListener('click', () => turnPage(-1));
  by('next').addEventListener('click', () => turnPage(1));
  by('similar').addEventListener('click', toggleSimilar);
  followHistogram();
  new ResizeObserver(drawHistogram).observe(by('list'));
  showFilters();
}
