// The review of concepts: verdicts and names are sent at once; those that cannot be sent are kept in the browser.
import {countUnsaved, drawFrame, get, getFilm, isGone, onConnection, post, showConnection} from './api.js';
import {by, fillMenu, format, make} from './dom.js';
import {change, state, watch} from './state.js';

const POLL_MS = 2000, STORE = 'vtcav unsent verdicts';
let folders = [], pathOf = {}, concepts = [], review = {revision: '', reviews: {}, concepts: {}}, page = null, sending = false;

// --- Outbox: changes that the server has not confirmed; it outlives the tab. Entries name the path of their folder,
// because another server may have been on this port. ---

function outbox() {
  try {
    return JSON.parse(localStorage.getItem(STORE) || '[]');
  } catch (error) { return []; }
}
function storeOutbox(entries) {
  try {
    localStorage.setItem(STORE, JSON.stringify(entries));
  } catch (error) { by('review-error').textContent = 'The browser denies storage; verdicts made while the server is gone are lost with this tab.'; }
  showConnection();
  showReviewState();
}

const sendable = () => outbox().filter(entry => Object.values(pathOf).includes(entry.path));

function record(values) {
  storeOutbox([...outbox(), {id: crypto.randomUUID(), path: pathOf[state.folder], ...values}]);
  showAll();
  send();
}

async function send() {
  if (sending) return;
  sending = true;
  try {
    if (sendable().length) by('review-error').textContent = '';
    let single = false; // after a refusal, each change goes by itself, so that only those at fault are dropped
    for (let entries = sendable(); entries.length; entries = sendable()) {
      const {path} = entries[0], folder = folders.find(name => pathOf[name] === path);
      const batch = single ? [entries[0]] : entries.filter(entry => entry.path === path);
      const sent = new Set(batch.map(entry => entry.id));
      let answer;
      try {
        answer = await post('reviews', {folder, changes: batch.map(({file, concept, verdict, name}) => ({file, concept, verdict, name}))});
      } catch (error) {
        if (error.status !== 400) return; // kept, and sent again
        by('review-error').textContent = error.message;
        if (error.message.includes('another process')) return;
        if (batch.length > 1) {
          single = true;
          continue;
        }
      }
      storeOutbox(outbox().filter(entry => !sent.has(entry.id)));
      if (answer && folder === state.folder) review = answer;
      else if (folder === state.folder) await poll(true);
      showAll();
    }
  } finally {
    sending = false;
    showReviewState();
  }
}

async function poll(force = false) {
  if (!state.folder || (state.view !== 'concepts' && !force)) {
    if (isGone() || state.view === 'clips') await get('ping').catch(() => {});
    return;
  }
  try {
    const answer = await get('reviews', {folder: state.folder, revision: force ? '' : review.revision});
    if (answer.reviews) {
      review = answer;
      showAll();
    }
  } catch (error) {
    if (error.status) by('review-error').textContent = error.message;
  }
  if (sendable().length) send();
}

// What the page shows of a clip: the review with the unsent changes on top.
function verdictOf(clip) {
  let [verdict, name] = review.reviews[clip.file] ?? ['', ''];
  for (const entry of outbox()) {
    if (entry.path !== pathOf[state.folder] || !(entry.file === clip.file || entry.concept === state.concept)) continue;
    verdict = entry.verdict ?? verdict;
    name = entry.name ?? name;
  }
  return {verdict, name};
}

function aboutConcept(name) {
  let [kept, rejected, newName] = review.concepts[name] ?? [0, 0, ''];
  const all = concepts.find(c => c.concept === name)?.clips ?? 0;
  for (const entry of outbox()) {
    if (entry.path !== pathOf[state.folder] || entry.concept !== name) continue;
    newName = entry.name ?? newName;
    if (entry.verdict !== undefined) [kept, rejected] = {keep: [all, 0], reject: [0, all], '': [0, 0]}[entry.verdict];
  }
  return {kept, rejected, all, name: newName || name};
}

// --- Display ---

function showAll() {
  showConceptList();
  for (const card of by('concept-cards').children) showVerdict(card);
  showConceptHead();
  showReviewState();
}

function showReviewState() {
  const n = outbox().filter(entry => entry.path === pathOf[state.folder]).length;
  by('review-state').textContent = n ? n === 1 ? '1 change is not saved yet' : `${n} changes are not saved yet` : `saved to ${folderPath}/review.csv`;
  document.body.dataset.unsent = sendable().length;
}

let folderPath = '';
async function updateFolder() {
  if (state.view !== 'concepts' || !folders.length) return;
  if (!folders.includes(state.folder)) return change({folder: folders[0], concept: state.folder ? '' : state.concept});
  fillMenu(by('folder'), folders.map(f => [f, f]), state.folder);
  try {
    const answer = await get('concepts', {folder: state.folder});
    [concepts, folderPath] = [answer.concepts, answer.folder];
  } catch (error) {
    by('review-error').textContent = error.message;
    return;
  }
  review = {revision: '', reviews: {}, concepts: {}};
  await poll(true);
  if (!concepts.some(c => c.concept === state.concept)) change({concept: concepts[0]?.concept ?? '', cards: 0});
  else await updateCards();
  showAll();
}

function showConceptList() {
  const makeItem = concept => {
    const about = aboutConcept(concept.concept), item = make('li'), button = make('button');
    const renamed = about.name !== concept.concept ? `${about.name} (${concept.concept})` : concept.concept;
    button.type = 'button';
    button.dataset.concept = concept.concept;
    button.append(make('span', about.rejected === about.all ? 'rejected' : '', renamed),
      make('span', 'soft', `${about.all - about.rejected} of ${about.all}`));
    button.setAttribute('aria-current', concept.concept === state.concept);
    button.addEventListener('click', () => change({concept: concept.concept, cards: 0}));
    item.append(button);
    return item;
  };
  const focused = document.activeElement?.dataset?.concept;
  by('concepts').replaceChildren(...concepts.filter(c => !c.negative).map(makeItem));
  by('negatives').replaceChildren(...concepts.filter(c => c.negative).map(makeItem));
  by('negatives-box').hidden = !by('negatives').children.length;
  if (focused) by('concept-list').querySelector(`[data-concept="${CSS.escape(focused)}"]`)?.focus();
}

function showConceptHead() {
  const concept = concepts.find(c => c.concept === state.concept);
  if (!concept) return;
  const about = aboutConcept(concept.concept), found = concept.discovered;
  by('concept-title').textContent = about.name === concept.concept ? concept.concept : `${about.name} (${concept.concept})`;
  by('concept-facts').textContent = [
    `${about.all} clips (${concept.types.join(', ')}), ${about.kept} kept, ${about.rejected} rejected`,
    ...(found ? [`discovered at ${found.stage}: importance ${format(found.importance)} (${format(found.low)} to ${format(found.high)}, p ${format(found.p)})` +
      (found.label ? `, most like ${found.label} (AUC ${format(found.auc)})` : '')] : []),
  ].join('; ');
  const input = by('concept-name');
  if (input !== document.activeElement) input.value = about.name;
  input.disabled = concept.negative;
  const others = concepts.filter(c => !c.negative && c.concept !== concept.concept);
  fillMenu(by('merge'), [['', 'no other'], ...others.map(c => [c.concept, aboutConcept(c.concept).name])],
    others.find(c => aboutConcept(c.concept).name === about.name)?.concept ?? '');
  by('merge').disabled = concept.negative;
}

async function updateCards() {
  if (state.view !== 'concepts' || !state.concept) return;
  let answer;
  const name = state.concept;
  try {
    answer = await get('concept_clips', {folder: state.folder, concept: name, page: state.cards});
  } catch (error) {
    by('review-error').textContent = error.message;
    return;
  }
  if (name !== state.concept) return;
  page = answer;
  if (page.page !== state.cards) change({cards: page.page});
  const concept = concepts.find(c => c.concept === name);
  by('overview').hidden = !concept?.overview;
  if (concept?.overview) {
    by('overview').src = '/api/overview?' + new URLSearchParams({folder: state.folder, concept: name});
    by('overview').alt = 'overview of ' + name;
  }
  by('concept-cards').replaceChildren(...page.clips.map(card));
  by('concept-pages').textContent = `page ${page.page + 1} of ${page.pages}, ${page.total} clips`;
  by('concept-previous').disabled = page.page === 0;
  by('concept-next').disabled = page.page + 1 >= page.pages;
  showAll();
  document.body.dataset.concept = name + '#' + page.page;
}

function card(clip) {
  const button = make('button', 'card'), canvas = make('canvas');
  button.type = 'button';
  button.clip = clip;
  canvas.width = canvas.height = 112;
  const confidence = clip.confidence === null ? '' : ', ' + clip.confidence.toFixed(2);
  button.append(canvas, make('span', 'verdict'), make('span', '', clip.type + confidence), make('span', '', clip.source));
  button.title = clip.file;
  button.addEventListener('click', () => toggle(button));
  button.addEventListener('pointerenter', () => play(button));
  button.addEventListener('focus', () => play(button));
  getFilm('concept_film', {folder: state.folder, file: clip.file}).then(film => {
    button.film = film;
    drawCard(button, Math.floor(film.frames / 2));
  }, () => button.querySelector('.verdict').append(' (cannot be read)'));
  showVerdict(button);
  return button;
}

function drawCard(button, frame) {
  const canvas = button.querySelector('canvas');
  drawFrame(canvas.getContext('2d'), button.film, frame, 0, 0, canvas.width, canvas.height);
}

// Play a clip while the pointer or the focus is on it.
function play(button) {
  if (button.timer || !button.film || button.film.frames < 2) return;
  let frame = 0;
  button.timer = setInterval(() => {
    if (!button.isConnected || !button.matches(':hover, :focus')) {
      clearInterval(button.timer);
      button.timer = 0;
      return;
    }
    drawCard(button, frame++ % button.film.frames);
  }, 110);
}

function showVerdict(button) {
  const {verdict} = verdictOf(button.clip);
  button.className = 'card ' + verdict;
  const text = {keep: 'kept', reject: 'rejected'}[verdict] ?? '';
  button.querySelector('.verdict').textContent = text || 'not reviewed';
  button.setAttribute('aria-label', [state.concept, button.clip.type, button.clip.source, text || 'not reviewed'].join(', '));
}

function setVerdict(button, verdict) {
  if (verdictOf(button.clip).verdict !== verdict) record({file: button.clip.file, verdict});
}
const toggle = button => setVerdict(button, verdictOf(button.clip).verdict === 'reject' ? 'keep' : 'reject');

function rename(name) {
  const text = name.trim();
  if (!text || text === aboutConcept(state.concept).name) return;
  record({concept: state.concept, name: text === state.concept ? '' : text});
}

// Keys of the review; returns whether the key has a meaning here.
export function pressKey(key) {
  const cards = [...by('concept-cards').children];
  const current = document.activeElement?.closest?.('#concept-cards .card'), i = cards.indexOf(current);
  const verdict = {r: 'reject', k: 'keep', u: ''}[key];
  let target = null;
  if (verdict !== undefined && cards.length) {
    setVerdict(cards[Math.max(i, 0)], verdict);
    target = cards[Math.min(cards.length - 1, Math.max(i, 0) + (key === 'u' ? 0 : 1))];
  } else if (key === 'ArrowRight' || key === 'ArrowLeft') {
    target = cards[Math.max(0, Math.min(cards.length - 1, i + (key === 'ArrowRight' ? 1 : -1)))];
  } else if (key === 'ArrowDown' || key === 'ArrowUp') {
    const names = concepts.map(c => c.concept), at = names.indexOf(state.concept) + (key === 'ArrowDown' ? 1 : -1);
    if (names[at] !== undefined) change({concept: names[at], cards: 0});
  } else if (key === 'n' || key === 'p') {
    change({cards: Math.max(0, Math.min((page?.pages ?? 1) - 1, state.cards + (key === 'n' ? 1 : -1)))});
  } else return false;
  target?.focus();
  return true;
}

export function startReview(entries) {
  folders = entries.map(entry => entry.name);
  pathOf = Object.fromEntries(entries.map(entry => [entry.name, entry.path]));
  countUnsaved(() => sendable().length);
  onConnection(isBack => { if (isBack) poll(true); });
  watch(['view', 'folder'], updateFolder);
  watch(['concept', 'cards'], updateCards);
  by('folder').addEventListener('change', () => change({folder: by('folder').value, concept: '', cards: 0}));
  by('concept-name').addEventListener('change', () => rename(by('concept-name').value));
  by('merge').addEventListener('change', () => {
    const other = by('merge').value;
    if (other) rename(aboutConcept(other).name);
    else record({concept: state.concept, name: ''});
  });
  by('reject-concept').addEventListener('click', () => record({concept: state.concept, verdict: 'reject'}));
  by('keep-concept').addEventListener('click', () => record({concept: state.concept, verdict: 'keep'}));
  by('concept-previous').addEventListener('click', () => change({cards: state.cards - 1}));
  by('concept-next').addEventListener('click', () => change({cards: state.cards + 1}));
  addEventListener('storage', event => { if (event.key === STORE) showAll(); });
  setInterval(() => { if (!document.hidden || isGone()) poll(); }, POLL_MS);
  if (sendable().length) send();
  updateFolder();
}
