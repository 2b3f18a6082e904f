// Panels beside a clip: steering, effects of concepts, tests, further maps, and how to make the same elsewhere.
import {get, latest, post} from './api.js';
import {by, colour, fillMenu, format, make, percent, readable, sized} from './dom.js';
import {clipKey} from './player.js';
import {change, state, watch, address, saveAddressNow} from './state.js';

const MAX_BARS = 6, ALL_STEPS = [-3, -2.5, -2, -1.5, -1, -0.5, 0.5, 1, 1.5, 2, 2.5, 3];
let steered = {key: '', unsteered: null, points: new Map()}, tests = [], menus = {};
const vectorKey = () => ({target: state.target, stage: state.stage, vector: state.vector});
const steerKey = () => JSON.stringify([clipKey(), vectorKey()]);

// --- Steering ---

const loadSteps = latest(async (signal, steps) => post('steer', {...clipKey(), ...vectorKey(), steps}));

async function steer(steps) {
  const key = steerKey();
  if (steered.key !== key) steered = {key, unsteered: null, points: new Map()};
  const missing = steps.filter(step => !steered.points.has(step));
  if (missing.length || !steered.unsteered) {
    by('steering').setAttribute('aria-busy', 'true');
    try {
      const answer = await loadSteps(missing.length ? missing : [0]);
      if (!answer || key !== steerKey()) return;
      steered.unsteered = answer.unsteered;
      for (const point of answer.steered) steered.points.set(point.step, point);
      by('steer-error').textContent = '';
    } catch (error) {
      by('steer-error').textContent = error.message;
      return;
    } finally {
      by('steering').removeAttribute('aria-busy');
    }
  }
  showSteering();
}

function showSteering() {
  const now = state.step ? steered.points.get(state.step) : steered.unsteered;
  by('step').value = state.step;
  by('step-text').textContent = state.step ? (state.step > 0 ? '+' : '−') + Math.abs(state.step) + ' steps' : 'no step';
  by('answers-bars').replaceChildren();
  if (now && steered.unsteered && steered.key === steerKey()) {
    const before = steered.unsteered.probabilities, after = now.probabilities;
    const names = Object.keys(before).sort((a, b) => Math.max(before[b], after[b]) - Math.max(before[a], after[a]));
    for (const name of names.slice(0, MAX_BARS)) by('answers-bars').append(...answerBar(name, before[name], after[name], now));
    document.body.dataset.steered = state.step + '#' + now.answer;
  }
  drawSteerCurve();
}

function answerBar(name, before, after, now) {
  const label = make('span', 'name' + (name === now.answer ? ' current' : ''), name);
  label.title = name;
  const track = make('span', 'track');
  for (const [kind, share] of [['before', before], ['after', after]]) {
    const fill = make('span', 'fill ' + kind);
    fill.style.width = 100 * share + '%';
    track.append(fill);
  }
  const number = make('span', 'number', state.step ? percent(before) + ' → ' + percent(after) : percent(before));
  return [label, track, number];
}

function drawSteerCurve() {
  const [context, width, height] = sized(by('steer-curve'), 90);
  if (steered.key !== steerKey() || !steered.unsteered) return;
  const points = [steered.unsteered, ...steered.points.values()].sort((a, b) => a.step - b.step);
  const scores = points.map(p => p.score), low = Math.min(...scores), high = Math.max(...scores);
  const x = step => 6 + (step + 3) / 6 * (width - 12), y = score => 16 + (high > low ? (high - score) / (high - low) : .5) * (height - 36);
  context.font = '11px system-ui, sans-serif';
  context.fillStyle = colour('soft');
  context.fillText(`score of ${state.target}: ${format(low)} to ${format(high)}`, 4, 11);
  context.strokeStyle = colour('line');
  context.beginPath(); context.moveTo(x(0), 14); context.lineTo(x(0), height - 14); context.stroke();
  context.fillText('0', x(0) - 3, height - 2);
  context.fillText('−3', 2, height - 2);
  context.fillText('+3', width - 18, height - 2);
  context.strokeStyle = context.fillStyle = colour('one');
  context.lineWidth = 2;
  context.beginPath();
  points.forEach((p, i) => context[i ? 'lineTo' : 'moveTo'](x(p.step), y(p.score)));
  context.stroke();
  for (const p of points) {
    const size = p.step === state.step ? 8 : 4;
    context.fillRect(x(p.step) - size / 2, y(p.score) - size / 2, size, size);
  }
}

export const steerBy = step => change({step: Math.max(-3, Math.min(3, state.step + step))});

let steerable = new Set();
export function updateSteering() {
  const possible = steerable.has(state.stage + '|' + state.vector);
  by('steering').hidden = !possible;
  if (!possible || !state.clip) return;
  by('steer-help').textContent = `Moves the activation at ${state.stage} along ${readable(state.vector)}; ` +
    'one step is the distance from the clips without the concept to those with it.';
  if (steered.key !== steerKey()) by('steer-error').textContent = '';
  steer(state.step ? [state.step] : []);
}

// --- Effects and tests ---

function showEffects(facts) {
  const entries = [...facts.effects].sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, MAX_BARS);
  by('effects-panel').hidden = !entries.length;
  const most = Math.max(...entries.map(e => Math.abs(e[1])), 1e-12);
  by('effects').replaceChildren(...entries.flatMap(([vector, value]) => {
    const name = make('button', 'name' + (vector === state.vector ? ' current' : ''), readable(vector));
    name.type = 'button';
    name.title = readable(vector);
    name.addEventListener('click', () => change({vector, step: 0}));
    const track = make('span', 'track'), fill = make('span', 'fill' + (value < 0 ? ' down' : ''));
    fill.style.width = 100 * Math.abs(value) / most + '%';
    track.append(fill);
    return [name, track, make('span', 'number', format(value))];
  }));
}

const loadTests = latest(signal => get('tests', {run: state.run, target: state.target}, signal));

async function updateTests() {
  if (state.task !== 'tcav') tests = [];
  else {
    try {
      tests = (await loadTests())?.tests ?? tests;
    } catch (error) { tests = []; }
  }
  showTests();
}

function showTests() {
  by('tests').parentNode.hidden = !tests.length;
  const table = make('table'), body = make('tbody'), head = make('tr');
  for (const text of ['concept', 'stage', 'effect', 'p']) head.append(Object.assign(make('th', '', text), {scope: 'col'}));
  const thead = make('thead');
  thead.append(head);
  for (const test of tests) {
    const row = make('tr', test.finding ? '' : 'faint'), cell = make('td'), button = make('button', '', readable(test.vector));
    const current = test.vector === state.vector && test.stage === state.stage;
    row.setAttribute('aria-current', current);
    button.type = 'button';
    cell.append(button);
    row.append(cell, make('td', '', test.stage), make('td', '', test.text), make('td', '', test.p));
    row.title = test.verdict;
    row.addEventListener('click', () => change({vector: test.vector, stage: test.stage, step: 0, page: 0}));
    body.append(row);
  }
  table.append(thead, body);
  by('tests').replaceChildren(table);
  const now = tests.find(test => test.vector === state.vector && test.stage === state.stage);
  by('finding').textContent = now ? `${readable(now.vector)} on ${state.target} at ${now.stage}: ${now.text} ` +
    `(${now.unit}, 95 % interval), adjusted p ${now.p}: ${now.verdict.replace('_', ' ')}` : '';
  by('finding').classList.toggle('significant', Boolean(now?.finding));
}

// --- Further maps ---

async function fillRequest() {
  if (!by('map-request').open) return;
  const key = state.run + '|' + state.task;
  try {
    menus[key] ??= await get('methods', {run: state.run, task: state.task});
  } catch (error) {
    by('request-state').textContent = error.message;
    return;
  }
  const {methods, stages, targets} = menus[key];
  fillMenu(by('request-target'), targets.map(t => [t, t]), by('request-target').value || state.target);
  fillMenu(by('request-method'), methods.map(m => [m.method, `${m.method} (${m.passes} passes)`]), by('request-method').value || 'attn_lrp');
  fillMenu(by('request-stage'), [['', "the method's own"], ...stages.map(s => [s, s])], by('request-stage').value);
}

async function requestMap() {
  const key = JSON.stringify(clipKey()), target = by('request-target').value;
  by('request').disabled = true;
  by('request-state').textContent = 'computing …';
  try {
    let answer = await post('maps', {...clipKey(), mapTarget: target, method: by('request-method').value,
      mapStage: by('request-stage').value});
    while (!answer.done) answer = {job: answer.job, ...await get('job', {job: answer.job})};
    if (answer.error) throw new Error(answer.error);
    by('request-state').textContent = `done: ${answer.map}`;
    if (key === JSON.stringify(clipKey())) change({map: answer.map, mapTarget: target, show: state.show === 'film' ? 'map' : state.show});
  } catch (error) {
    by('request-state').textContent = error.message;
  } finally {
    by('request').disabled = false;
  }
}

// --- Link, command and Python ---

const loadRecipes = latest(signal => get('reproduce', {...clipKey(), ...vectorKey(), map: state.show === 'film' ? '' : state.map,
  mapTarget: state.mapTarget || state.target, step: state.step}, signal));

async function updateRecipes() {
  if (!by('reproduce').open || !state.clip) return;
  let recipes;
  try {
    recipes = await loadRecipes();
  } catch (error) {
    by('recipes').replaceChildren(make('p', 'error', error.message));
    return;
  }
  if (!recipes) return;
  const parts = [['This page', recipes.page + ' --port=' + location.port], ['The run', recipes.run],
    ['What the view shows, for all clips', recipes.command], ['The view in Python', recipes.python]];
  by('recipes').replaceChildren(...parts.filter(([, text]) => text).flatMap(([title, text]) => {
    const copy = make('button', '', 'Copy');
    copy.type = 'button';
    copy.addEventListener('click', () => copyText(text));
    const head = make('p', 'bar', title + ' ');
    head.append(copy);
    return [head, make('pre', title.endsWith('Python') ? 'python' : '', text)];
  }));
}

async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    by('copied').textContent = 'copied';
  } catch (error) {
    by('copied').textContent = 'the browser does not allow copying; select the text';
  }
  setTimeout(() => { by('copied').textContent = ''; }, 2000);
}

export function describeRun(run) { steerable = new Set(state.task === 'tcav' ? run.steerable : []); }

export function startPanels() {
  watch(['run', 'task', 'clip', 'part', 'target', 'stage', 'vector', 'step'], updateSteering);
  watch(['run', 'task', 'target'], updateTests);
  watch(['stage', 'vector'], showTests);
  watch(['run', 'task'], fillRequest);
  watch(['run', 'task', 'clip', 'part', 'target', 'stage', 'vector', 'step', 'map', 'mapTarget', 'show'], updateRecipes);
  document.addEventListener('facts', event => showEffects(event.detail));
  by('step').addEventListener('input', () => change({step: Number(by('step').value)}));
  by('steer-down').addEventListener('click', () => steerBy(-0.5));
  by('steer-up').addEventListener('click', () => steerBy(0.5));
  by('steer-all').addEventListener('click', () => steer(ALL_STEPS));
  by('map-request').addEventListener('toggle', fillRequest);
  by('request').addEventListener('click', requestMap);
  by('reproduce').addEventListener('toggle', updateRecipes);
  by('copy-link').addEventListener('click', () => {
    saveAddressNow();
    copyText(location.origin + address());
  });
  new ResizeObserver(drawSteerCurve).observe(by('panels'));
}

export function reloadPanels() {
  updateTests(); updateSteering(); updateRecipes();
}
