// One clip: film, map over it and curves below it share one timeline.
import {drawFrame, get, getFilm, latest} from './api.js';
import {by, colour, fillMenu, format, make, percent, readable, sized} from './dom.js';
import {change, saveAddressNow, state, watch} from './state.js';

const TRACK = 66, AXIS = 18, TITLE = 14;
const KINDS = {effect: ['one'], map: ['two', 'four'], motion: ['three', 'three']}, DASHES = [[], [4, 3]];
let film = null, overlay = null, curves = null, facts = null, clicked = 0, playing = 0;

export const clipKey = () => ({run: state.run, task: state.task, clip: state.clip, part: state.part});
const mark = () => state.clip + '#' + state.part;
export const noteClick = () => {
  clicked = performance.now();
  delete document.body.dataset.clickMs;
  delete document.body.dataset.mapMs;
};
// Note how long after a click the next picture appears; benchmarks read it.
const noteTime = name => {
  const since = clicked;
  if (since) requestAnimationFrame(() => { document.body.dataset[name] = (performance.now() - since).toFixed(1); });
};

const loadFilm = latest(async signal => {
  const name = mark();
  const loaded = await getFilm('film', clipKey(), signal);
  film = {...loaded, name};
});
const loadFacts = latest(async signal => {
  facts = await get('facts', {...clipKey(), target: state.target, stage: state.stage, vector: state.vector}, signal);
  return facts;
});
const loadOverlay = latest(async signal => {
  const name = [mark(), state.mapTarget, state.map, state.show].join('#');
  const kind = state.show === 'motion' ? 'motion' : 'all';
  overlay = {...await getFilm('overlay', {...clipKey(), mapTarget: state.mapTarget, map: state.map, part_of_map: kind}, signal), name};
});
const loadCurves = latest(async signal => {
  curves = await get('curves', {...clipKey(), target: state.target, stage: state.stage, vector: state.vector,
    mapTarget: state.mapTarget || state.target, map: state.map}, signal);
});

const showError = error => { by('film-error').textContent = error.message; };

async function updateFilm() {
  if (!state.clip) return;
  pause();
  by('clip-name').textContent = state.clip + (state.part ? ', clip ' + (state.part + 1) : '');
  try {
    await loadFilm();
    if (film?.name !== mark()) return;
    by('film-error').textContent = '';
    by('frame').max = film.frames - 1;
    if (state.frame >= film.frames) change({frame: 0});
    draw();
    document.body.dataset.drawn = film.name;
    noteTime('clickMs');
  } catch (error) {
    film = null;
    by('film').getContext('2d').clearRect(0, 0, by('film').width, by('film').height);
    showError(error);
  }
}

async function updateFacts() {
  if (!state.clip) return;
  try {
    if (!await loadFacts()) return;
  } catch (error) { return showError(error); }
  const answer = facts.answer === null ? '' : `answer: ${facts.answer}, ${percent(facts.probability)} for ${state.target}`;
  by('answer').textContent = answer;
  showMapMenu();
  document.dispatchEvent(new CustomEvent('facts', {detail: facts}));
}

const nameOfMap = (target, map) => target + ' by ' + map.replace('@', ' at ');

function showMapMenu() {
  const stored = facts.maps.map(m => [m.target + '|' + m.map, nameOfMap(m.target, m.map)]);
  const current = state.mapTarget + '|' + state.map;
  if (state.map && !stored.some(([value]) => value === current)) stored.push([current, nameOfMap(state.mapTarget, state.map)]);
  if (!stored.length) stored.push(['', 'none; compute one below']);
  if (!state.map && facts.maps.length) {
    const best = facts.maps.find(m => m.target === state.target) ?? facts.maps[0];
    fillMenu(by('map'), stored, best.target + '|' + best.map);
    return change({map: best.map, mapTarget: best.target});
  }
  fillMenu(by('map'), stored, current);
}

async function updateMap() {
  if (!state.clip) return;
  overlay = null;
  const wanted = state.map && state.show !== 'film';
  const tasks = [loadCurves().then(showCurves, showError)];
  if (wanted) {
    tasks.push(loadOverlay().then(() => { draw(); noteTime('mapMs'); }, error => {
      if (error.status === 404) by('map-facts').textContent = 'This map is not computed for this clip; compute it with “Compute another map”.';
      else showError(error);
    }));
  }
  await Promise.all(tasks);
}

function showCurves() {
  if (!curves) return;
  const about = curves.map;
  if (about) {
    const scale = about.signed ? 'red: for it, blue: against it' : 'yellow: much, transparent: none';
    by('map-facts').textContent = `Map of ${nameOfMap(about.target, about.map)}${about.answer === about.target ? '' : ', here ' + about.answer}: score ${format(about.score)}, ` +
      `${about.grid.join(' × ')} cells (time, height, width); ${scale}; one scale for the whole clip.`;
  } else if (!curves.missing) by('map-facts').textContent = '';
  by('legend').replaceChildren(...curves.curves.map(curve => {
    const against = curve.label.includes('against it');
    const kind = curve.kind === 'map' ? (against ? 'against' : 'for') : curve.kind;
    return make('li', kind, curve.kind === 'effect' ? 'effect of ' + readable(state.vector) : curve.label);
  }));
  drawCurves();
  document.body.dataset.curves = mark();
}

export function draw() {
  drawFilm();
  drawCurves();
  by('frame').value = state.frame;
  by('frame').setAttribute('aria-valuetext', frameText());
  by('time').textContent = frameText();
}

const frameText = () => film ? `${film.times[state.frame]?.toFixed(2) ?? 0} s, frame ${state.frame + 1} of ${film.frames}` : '';

function drawFilm() {
  if (!film || film.name !== mark()) return;
  const canvas = by('film'), scale = Math.max(1, Math.ceil(480 / film.width));
  const [width, height] = [film.width * scale, film.height * scale];
  if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext('2d');
  const ready = overlay && state.show !== 'film' && overlay.name === [mark(), state.mapTarget, state.map, state.show].join('#');
  context.imageSmoothingEnabled = scale < 3;
  context.filter = ready ? 'grayscale(1) contrast(.7) brightness(1.1)' : 'none';
  drawFrame(context, film, state.frame, 0, 0, width, height);
  context.filter = 'none';
  if (ready) {
    context.imageSmoothingEnabled = true;
    drawFrame(context, overlay, state.frame, 0, 0, width, height);
  }
  document.body.dataset.shown = [mark(), state.frame, ready ? overlay.name.split('#').slice(2).join(' ') : 'film'].join('#');
}

function drawCurves() {
  const canvas = by('curves');
  const lines = curves && film ? curves.curves : [];
  const kinds = Object.keys(KINDS).filter(kind => lines.some(line => line.kind === kind));
  const [context, width] = sized(canvas, kinds.length * TRACK + AXIS);
  if (!film) return;
  const times = film.times, start = times[0], end = times[times.length - 1];
  const x = time => 6 + (end > start ? (time - start) / (end - start) : 0.5) * (width - 12);
  context.font = '11px system-ui, sans-serif';
  kinds.forEach((kind, row) => {
    const members = lines.filter(line => line.kind === kind), top = row * TRACK;
    const values = members.flatMap(line => line.values);
    const high = Math.max(0, ...values), low = Math.min(0, ...values);
    const y = value => top + TITLE + (high > low ? (high - value) / (high - low) : 0.5) * (TRACK - TITLE - 8);
    context.strokeStyle = colour('line');
    context.beginPath(); context.moveTo(0, y(0)); context.lineTo(width, y(0)); context.stroke();
    members.forEach((line, i) => {
      context.strokeStyle = colour(KINDS[kind][i]);
      context.fillStyle = context.strokeStyle;
      context.lineWidth = 2;
      context.setLineDash(DASHES[i]);
      context.beginPath();
      line.values.forEach((value, k) => context[k ? 'lineTo' : 'moveTo'](x(line.times[k]), y(value)));
      context.stroke();
      line.values.forEach((value, k) => context.fillRect(x(line.times[k]) - 2, y(value) - 2, 4, 4));
    });
    context.lineWidth = 1;
    context.setLineDash([]);
    context.fillStyle = colour('soft');
    const title = {effect: 'effect per unit length', map: 'relevance', motion: 'relevance, motion part'}[kind];
    const now = members.map(line => format(valueAt(line, times[state.frame]))).join(' / ');
    context.fillText(`${title}: ${now}`, 4, top + 11);
    const range = format(low) + ' to ' + format(high);
    context.fillText(range, width - context.measureText(range).width - 4, top + 11);
  });
  context.fillStyle = colour('soft');
  const bottom = kinds.length * TRACK + AXIS - 5;
  context.fillText(start.toFixed(2) + ' s', 4, bottom);
  const text = end.toFixed(2) + ' s';
  context.fillText(text, width - context.measureText(text).width - 4, bottom);
  context.strokeStyle = colour('ink');
  context.beginPath();
  context.moveTo(x(times[state.frame]), 0);
  context.lineTo(x(times[state.frame]), kinds.length * TRACK + 4);
  context.stroke();
}

function valueAt(line, time) {
  const {times, values} = line;
  for (let k = 1; k < times.length; k++) {
    if (time > times[k]) continue;
    const share = Math.max(0, Math.min(1, (time - times[k - 1]) / (times[k] - times[k - 1] || 1)));
    return values[k - 1] + share * (values[k] - values[k - 1]);
  }
  return values[values.length - 1];
}

export function moveTo(frame) {
  if (film) change({frame: Math.max(0, Math.min(film.frames - 1, frame))});
}
export const moveBy = step => { pause(); moveTo(state.frame + step); };

export function togglePlay() {
  if (playing) return pause();
  if (!film || film.frames < 2) return;
  by('play').textContent = 'Pause';
  by('play').setAttribute('aria-label', 'pause');
  const seconds = film.times[film.frames - 1] - film.times[0] || film.frames / 12;
  const delay = Math.max(60, Math.min(250, 1000 * seconds / (film.frames - 1)));
  playing = setInterval(() => moveTo((state.frame + 1) % film.frames), delay);
}

function pause() {
  clearInterval(playing);
  playing = 0;
  by('play').textContent = 'Play';
  by('play').setAttribute('aria-label', 'play');
}

function scrub(event) {
  if (!film) return;
  const box = by('curves').getBoundingClientRect();
  const share = (event.clientX - box.left - 6) / (box.width - 12);
  const time = film.times[0] + share * (film.times[film.frames - 1] - film.times[0]);
  const distances = film.times.map(t => Math.abs(t - time));
  pause();
  moveTo(distances.indexOf(Math.min(...distances)));
}

export function startPlayer() {
  watch(['run', 'task', 'clip', 'part'], updateFilm);
  watch(['run', 'task', 'clip', 'part', 'target', 'stage', 'vector'], updateFacts);
  watch(['run', 'task', 'clip', 'part', 'target', 'stage', 'vector', 'map', 'mapTarget', 'show'], updateMap);
  watch(['frame', 'show'], draw);
  watch(['map', 'mapTarget'], () => { if (facts && state.map) showMapMenu(); });
  by('play').addEventListener('click', togglePlay);
  by('frame').addEventListener('input', () => { pause(); moveTo(Number(by('frame').value)); });
  by('frame').addEventListener('change', saveAddressNow);
  by('show').addEventListener('change', () => change({show: by('show').value}));
  by('map').addEventListener('change', () => {
    const [target, map] = by('map').value.split('|');
    change({map: map ?? '', mapTarget: target});
  });
  watch(['show'], () => { by('show').value = state.show; });
  const canvas = by('curves');
  canvas.addEventListener('pointerdown', event => { canvas.setPointerCapture(event.pointerId); scrub(event); });
  canvas.addEventListener('pointermove', event => { if (event.buttons) scrub(event); });
  new ResizeObserver(drawCurves).observe(by('player'));
}

export function reloadPlayer() {
  updateFilm(); updateFacts(); updateMap();
  by('show').value = state.show;
}
