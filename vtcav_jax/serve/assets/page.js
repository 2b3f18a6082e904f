// Entry of the page: menus, views and keys.
import {get, setRestartCommand} from './api.js';
import {startList, step, fillMeasures, toggleSimilar, turnPage, updateList} from './clips.js';
import {by, fillMenu, make, readable} from './dom.js';
import {describeRun, reloadPanels, startPanels, steerBy} from './panels.js';
import {moveBy, moveTo, reloadPlayer, startPlayer, togglePlay} from './player.js';
import {pressKey, startReview} from './review.js';
import {change, flush, readAddress, state, watch} from './state.js';

const KEYS = [['← →', 'frame back and on; clip in the review'], ['Space', 'play and pause'], ['Home End', 'first and last frame'],
  ['j k', 'next and previous clip'], ['n p', 'next and previous page'], ['+ −', 'steer the concept up and down'],
  ['0', 'no steering'], ['m', 'map, motion part, film only'], ['s', 'similar clips'], ['v', 'clips and concepts'],
  ['r k u', 'in the review: reject, keep, no verdict'], ['↑ ↓', 'in the review: concept'], ['?', 'this list']];
let workspace = null;

const run = () => workspace.runs.find(r => r.name === state.run);
const task = () => run()?.tasks[state.task];

// Replace what the run does not have, so that an old link still opens.
function repair() {
  if (!workspace.runs.length) return void (state.view = 'concepts');
  if (!run()) Object.assign(state, workspace.start, {view: state.view});
  if (!task()) state.task = Object.keys(run().tasks)[0];
  const {targets, stages = [], vectors = [], measures} = task();
  if (!targets.includes(state.target)) state.target = targets[0] ?? '';
  state.stage = stages.includes(state.stage) ? state.stage : stages[0] ?? '';
  state.vector = vectors.includes(state.vector) ? state.vector : vectors[0] ?? '';
  if (!measures.some(m => m.name === state.measure)) state.measure = measures[0].name;
  if (!task().knowsAnswers) state.answers = 'all';
}

function showMenus() {
  for (const [name, shown] of [['clips', state.view === 'clips'], ['concepts', state.view === 'concepts']]) {
    by(name + '-view').hidden = !shown;
    by('tab-' + name).setAttribute('aria-selected', shown);
  }
  by('tab-clips').hidden = !workspace.runs.length;
  by('tab-concepts').hidden = !workspace.concepts.length;
  if (!workspace.runs.length) return;
  const same = name => [name, name];
  fillMenu(by('run'), workspace.runs.map(r => same(r.name)), state.run);
  const titles = {tcav: 'concepts', attribute: 'maps', motion: 'motion'};
  fillMenu(by('task'), Object.keys(run().tasks).map(name => [name, `${titles[name]} (${run().tasks[name].clips} clips)`]), state.task);
  const {targets, stages = [], vectors = [], measures} = task();
  fillMenu(by('target'), targets.map(same), state.target);
  fillMenu(by('stage'), stages.map(same), state.stage);
  fillMenu(by('vector'), vectors.map(v => [v, readable(v)]), state.vector);
  for (const name of ['stage', 'vector']) by(name).parentNode.hidden = state.task !== 'tcav';
  by('run').parentNode.hidden = workspace.runs.length < 2;
  by('task').parentNode.hidden = Object.keys(run().tasks).length < 2;
  fillMeasures(measures);
  by('notice').textContent = task().notice;
  by('answers-label').hidden = !task().knowsAnswers;
  describeRun(run());
  document.title = [state.view === 'concepts' ? 'concepts' : state.clip, state.run].filter(Boolean).join(' – ') || 'vtcav';
}

function changeRun(values) {
  Object.assign(state, {clip: '', part: 0, map: '', mapTarget: '', page: 0, step: 0, min: '', max: '', list: 'all'});
  const before = {...state};
  Object.assign(state, values);
  repair();
  const after = {...state};
  Object.assign(state, before);
  change(after);
}

function startMenus() {
  by('run').addEventListener('change', () => changeRun({run: by('run').value, task: ''}));
  by('task').addEventListener('change', () => changeRun({task: by('task').value}));
  by('target').addEventListener('change', () => change({target: by('target').value, clip: '', page: 0, step: 0, map: '', mapTarget: '', min: '', max: '', list: 'all'}));
  for (const name of ['stage', 'vector'])
    by(name).addEventListener('change', () => change({[name]: by(name).value, page: 0, step: 0, min: '', max: ''}));
  for (const name of ['clips', 'concepts']) by('tab-' + name).addEventListener('click', () => change({view: name}));
  watch(['view', 'run', 'task', 'target', 'stage', 'vector', 'clip'], showMenus);
}

function startHelp() {
  by('keys').replaceChildren(...KEYS.flatMap(([keys, text]) => {
    const term = make('dt');
    for (const key of keys.split(' ')) term.append(make('kbd', '', key), ' ');
    return [term, make('dd', '', text)];
  }));
  by('help-button').addEventListener('click', () => by('help').showModal());
  by('help-close').addEventListener('click', () => by('help').close());
}

const SHOWS = ['map', 'motion', 'film'];
const ACTIONS = {
  ArrowRight: () => moveBy(1), ArrowLeft: () => moveBy(-1), ' ': togglePlay, Home: () => moveTo(0), End: () => moveTo(Infinity),
  j: () => step(1), k: () => step(-1), n: () => turnPage(1), p: () => turnPage(-1),
  '+': () => steerBy(0.5), '=': () => steerBy(0.5), '-': () => steerBy(-0.5), 0: () => change({step: 0}),
  m: () => change({show: SHOWS[(SHOWS.indexOf(state.show) + 1) % SHOWS.length]}), s: toggleSimilar,
};

document.addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey || by('help').open) return;
  if (event.target.closest('select, input:not([type=range]), summary')) return;
  if (event.key === '?') by('help').showModal();
  else if (event.key === 'v' && workspace?.concepts.length && workspace.runs.length) change({view: state.view === 'clips' ? 'concepts' : 'clips'});
  else if (state.view === 'concepts') { if (!pressKey(event.key)) return; }
  else if (event.target.closest('button') && (event.key === ' ' || event.key === 'Enter')) return;
  else if (event.target.id === 'step' && event.key.startsWith('Arrow')) return;
  else if (ACTIONS[event.key]) ACTIONS[event.key]();
  else return;
  event.preventDefault();
});

async function start() {
  workspace = await get('workspace');
  setRestartCommand(workspace.command);
  readAddress(workspace.start);
  repair();
  startMenus();
  startHelp();
  startPlayer();
  startList();
  startPanels();
  showMenus();
  startReview(workspace.concepts);
  flush();
  if (workspace.runs.length) {
    updateList();
    reloadPlayer();
    reloadPanels();
  }
  document.body.dataset.ready = 'true';
}

start().catch(error => {
  by('gone').hidden = false;
  by('gone').textContent ||= error.message;
});
