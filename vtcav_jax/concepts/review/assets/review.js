'use strict';
const clips = JSON.parse(document.getElementById('data').textContent);
const by = id => document.getElementById(id);
const keyOf = 'vtcav review ' + clips.map(c => c.sha256.slice(0, 6) + c.verdict).join('').slice(0, 4000);
for (const clip of clips) [clip.stored, clip.name] = [clip.verdict, clip.newName || clip.concept];
let unsaved = false;
try {
  const drafts = JSON.parse(localStorage.getItem(keyOf) || '{}');
  for (const clip of clips) {
    const [verdict, name] = drafts[clip.file] || [clip.verdict, clip.name];
    if (verdict !== clip.verdict || name !== clip.name) unsaved = true;
    [clip.verdict, clip.name] = [verdict, name];
  }
} catch (error) { /* browsers may deny storage to local files */ }

function make(tag, name, text) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
}

for (const [id, field] of [['concept', 'concept'], ['kind', 'kind']]) {
  const all = make('option', '', 'all');
  all.value = '';
  by(id).append(all, ...[...new Set(clips.map(c => c[field]))].map(name => {
    const option = make('option', '', name);
    option.value = ' ' + name;
    return option;
  }));
}

// A preview is loaded only while visible: hundreds of playing videos would freeze the browser.
const watcher = new IntersectionObserver(entries => {
  for (const entry of entries) {
    const clip = entry.target.clip, view = entry.target.firstChild;
    if (!entry.isIntersecting) { view.replaceChildren(); continue; }
    if (view.firstChild) continue;
    const moving = clip.preview.startsWith('data:video/');
    const media = make(moving ? 'video' : 'img');
    if (moving) Object.assign(media, {muted: true, loop: true, autoplay: true, playsInline: true});
    else media.alt = '';
    media.src = clip.preview;
    view.append(media);
  }
}, {rootMargin: '200px'});

for (const clip of clips) {
  const card = make('button', 'card');
  card.type = 'button';
  card.clip = clip;
  clip.card = card;
  const confidence = clip.confidence === null ? '' : clip.confidence.toFixed(2) + ' ';
  const verdict = make('span', 'verdict');
  const first = make('span', 'what', confidence);
  first.append(verdict);
  const source = make('span', 'what', clip.source || clip.file);
  const details = make('span', 'what', (clip.frames.includes(' ') ? 'frames ' : 'frame ') + clip.frames + ', ' + clip.size);
  card.title = [clip.file, clip.label, clip.source].filter(Boolean).join('\n');
  card.append(make('span', 'view'), first, source, details);
  clip.verdictText = verdict;
  showVerdict(clip);
}

function showVerdict(clip) {
  clip.card.className = 'card ' + clip.verdict;
  clip.verdictText.textContent = {keep: 'kept', reject: 'rejected'}[clip.verdict] || '';
  const label = [clip.concept, clip.kind, clip.source, clip.verdictText.textContent || 'not reviewed'];
  clip.card.setAttribute('aria-label', label.join(', '));
}

function setVerdict(clip, verdict) {
  if (clip.verdict === verdict) return;
  clip.verdict = verdict;
  unsaved = true;
  showVerdict(clip);
  showCounts();
  saveDraft();
}

function saveDraft() {
  try {
    localStorage.setItem(keyOf, JSON.stringify(Object.fromEntries(clips.map(c => [c.file, [c.verdict, c.name]]))));
  } catch (error) { /* as above */ }
}

// Concepts that are given the same name are one concept.
function makeHeading(members) {
  const [{concept, kind, negative}] = members;
  const heading = make('h2', '', concept + ', ' + kind + ' (' + members.length + ') ');
  if (negative) return heading;
  const all = clips.filter(c => c.concept === concept);
  const label = make('label', 'name', 'name '), input = make('input'), reject = make('button', '', 'Reject the concept');
  input.value = all[0].name;
  input.dataset.concept = concept;
  input.addEventListener('input', () => {
    for (const clip of all) clip.name = input.value.trim() || concept;
    for (const other of document.querySelectorAll('h2 input'))
      if (other !== input && other.dataset.concept === concept) other.value = input.value;
    unsaved = true;
    showCounts();
    saveDraft();
  });
  reject.type = 'button';
  reject.addEventListener('click', () => all.forEach(c => setVerdict(c, 'reject')));
  label.append(input);
  heading.append(label, ' ', reject);
  return heading;
}

function makeOverview(clip) {
  const figure = make('figure'), picture = make('img');
  picture.src = clip.overview;
  picture.alt = 'overview of ' + clip.concept;
  figure.append(picture, make('figcaption', 'help', clip.overviewCaption));
  return figure;
}

function showCounts() {
  const count = verdict => clips.filter(c => c.verdict === verdict).length;
  by('counts').textContent = clips.length + ' clips, ' + visible.length + ' displayed: ' + count('keep') + ' kept, ' +
    count('reject') + ' rejected, ' + count('') + ' not reviewed' + (unsaved ? ' (not saved)' : '');
  by('save').classList.toggle('unsaved', unsaved);
}

let visible = [];
function updateList() {
  const concept = by('concept').value, kind = by('kind').value, state = by('state').value;
  const maxConfidence = Number(by('most').value), sort = by('sort').value;
  by('at').textContent = maxConfidence;
  visible = clips.filter(c => (!concept || ' ' + c.concept === concept) && (!kind || ' ' + c.kind === kind) &&
    (!state || c.verdict === (state === 'none' ? '' : state)) &&
    (c.confidence === null || c.confidence <= maxConfidence));
  const confidenceOf = c => c.confidence === null ? 2 : c.confidence;
  const position = new Map(clips.map((c, i) => [c, i]));
  visible.sort((a, b) => sort === 'source' ? (a.source < b.source ? -1 : a.source > b.source ? 1 : 0)
    : (sort === 'up' ? 1 : -1) * (confidenceOf(a) - confidenceOf(b)));
  const groups = new Map();
  for (const clip of [...visible].sort((a, b) => position.get(a) - position.get(b))) {
    const name = clip.concept + ', ' + clip.kind;
    if (!groups.has(name)) groups.set(name, []);
  }
  for (const clip of visible) groups.get(clip.concept + ', ' + clip.kind).push(clip);
  visible = [...groups.values()].flat();
  const parts = [...groups.values()].map(members => {
    const section = make('section'), grid = make('div', 'grid');
    grid.append(...members.map(c => c.card));
    section.append(makeHeading(members));
    const withOverview = members.find(c => c.overview);
    if (withOverview) section.append(makeOverview(withOverview));
    section.append(grid);
    return section;
  });
  watcher.disconnect();
  by('main').replaceChildren(...parts);
  for (const clip of visible) watcher.observe(clip.card);
  showCounts();
}

for (const id of ['concept', 'kind', 'state', 'sort', 'most']) by(id).addEventListener('input', updateList);

by('main').addEventListener('click', event => {
  const card = event.target.closest('.card');
  if (card) setVerdict(card.clip, card.clip.verdict === 'reject' ? 'keep' : 'reject');
});

document.addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest('select, input')) return;
  const verdict = {r: 'reject', k: 'keep', u: ''}[event.key];
  // A verdict before a clip is selected is about the first one
  const card = document.activeElement.closest('.card') ?? (verdict === undefined ? null : visible[0]?.card);
  const position = card ? visible.indexOf(card.clip) : -1;
  let step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
  if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
    const columns = card ? getComputedStyle(card.parentNode).gridTemplateColumns.split(' ').length : 1;
    step = event.key === 'ArrowDown' ? columns : -columns;
  }
  if (verdict !== undefined && card) {
    setVerdict(card.clip, event.key === 'r' && card.clip.verdict === 'reject' ? 'keep' : verdict);
    step = event.key === 'u' ? 0 : 1;
  } else if (step === undefined) return;
  event.preventDefault();
  const next = visible[Math.max(0, Math.min(visible.length - 1, position + step))];
  if (next) next.card.focus();
});

by('rest').addEventListener('click', () => {
  for (const clip of visible) if (!clip.verdict) setVerdict(clip, 'keep');
});

by('save').addEventListener('click', () => {
  const cell = text => '"' + text.replaceAll('"', '""') + '"';
  // Removed verdicts are saved too, because concepts.csv still contains them.
  const nameOf = clip => clip.newName || clip.name !== clip.concept ? clip.name : '';
  const rows = clips.filter(c => c.verdict || c.stored || nameOf(c)).map(
    c => [c.file, c.sha256, c.verdict, nameOf(c)].map(cell).join(','));
  const link = make('a');
  link.href = URL.createObjectURL(new Blob(['file,sha256,verdict,name\n', rows.map(r => r + '\n').join('')],
    {type: 'text/csv'}));
  link.download = 'review.csv';
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  unsaved = false;
  showCounts();
});

addEventListener('beforeunload', event => { if (unsaved) event.preventDefault(); });
updateList();
document.body.dataset.ready = Math.round(performance.now());
