'use strict';
const clips = JSON.parse(document.getElementById('data').textContent);
const by = id => document.getElementById(id);
const keyOf = 'vtcav review ' + clips.map(c => c.sha256.slice(0, 6) + c.verdict).join('').slice(0, 4000);
for (const clip of clips) clip.stored = clip.verdict;
let unsaved = false;
try {
  const drafts = JSON.parse(localStorage.getItem(keyOf) || '{}');
  for (const clip of clips) if (clip.file in drafts && clip.verdict !== drafts[clip.file]) {
    clip.verdict = drafts[clip.file];
    unsaved = true;
  }
} catch (error) { /* a browser may keep nothing for files */ }

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

// A preview plays only while it is to be seen: hundreds of videos at once would stop any browser.
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
  const sure = clip.confidence === null ? '' : clip.confidence.toFixed(2) + ' ';
  const verdict = make('span', 'verdict');
  const first = make('span', 'what', sure);
  first.append(verdict);
  const where = make('span', 'what', clip.source || clip.file);
  const what = make('span', 'what', 'frame ' + clip.frames + ', ' + clip.size);
  card.title = [clip.file, clip.label, clip.source].filter(Boolean).join('\n');
  card.append(make('span', 'view'), first, where, what);
  clip.said = verdict;
  show(clip);
}

function show(clip) {
  clip.card.className = 'card ' + clip.verdict;
  clip.said.textContent = {keep: 'kept', reject: 'rejected'}[clip.verdict] || '';
  const told = [clip.concept, clip.kind, clip.source, clip.said.textContent || 'not looked at'];
  clip.card.setAttribute('aria-label', told.join(', '));
}

function judge(clip, verdict) {
  if (clip.verdict === verdict) return;
  clip.verdict = verdict;
  unsaved = true;
  show(clip);
  count();
  try {
    localStorage.setItem(keyOf, JSON.stringify(Object.fromEntries(clips.map(c => [c.file, c.verdict]))));
  } catch (error) { /* as above */ }
}

function count() {
  const of = verdict => clips.filter(c => c.verdict === verdict).length;
  by('counts').textContent = clips.length + ' clips, ' + shown.length + ' shown: ' + of('keep') + ' kept, ' +
    of('reject') + ' rejected, ' + of('') + ' not looked at' + (unsaved ? ' (not saved)' : '');
  by('save').classList.toggle('unsaved', unsaved);
}

let shown = [];
function list() {
  const concept = by('concept').value, kind = by('kind').value, state = by('state').value;
  const most = Number(by('most').value), sort = by('sort').value;
  by('at').textContent = most;
  shown = clips.filter(c => (!concept || ' ' + c.concept === concept) && (!kind || ' ' + c.kind === kind) &&
    (!state || c.verdict === (state === 'none' ? '' : state)) && (c.confidence === null || c.confidence <= most));
  const sure = c => c.confidence === null ? 2 : c.confidence;
  const place = new Map(clips.map((c, i) => [c, i]));
  shown.sort((a, b) => sort === 'source' ? (a.source < b.source ? -1 : a.source > b.source ? 1 : 0)
    : (sort === 'up' ? 1 : -1) * (sure(a) - sure(b)));
  const groups = new Map();
  for (const clip of [...shown].sort((a, b) => place.get(a) - place.get(b))) {
    const name = clip.concept + ', ' + clip.kind;
    if (!groups.has(name)) groups.set(name, []);
  }
  for (const clip of shown) groups.get(clip.concept + ', ' + clip.kind).push(clip);
  shown = [...groups.values()].flat();
  const parts = [...groups].map(([name, some]) => {
    const section = make('section'), grid = make('div', 'grid');
    grid.append(...some.map(c => c.card));
    section.append(make('h2', '', name + ' (' + some.length + ')'), grid);
    return section;
  });
  watcher.disconnect();
  by('main').replaceChildren(...parts);
  for (const clip of shown) watcher.observe(clip.card);
  count();
}

for (const id of ['concept', 'kind', 'state', 'sort', 'most']) by(id).addEventListener('input', list);

by('main').addEventListener('click', event => {
  const card = event.target.closest('.card');
  if (card) judge(card.clip, card.clip.verdict === 'reject' ? 'keep' : 'reject');
});

document.addEventListener('keydown', event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest('select, input')) return;
  const card = document.activeElement.closest('.card');
  const at = card ? shown.indexOf(card.clip) : -1;
  const verdict = {r: 'reject', k: 'keep', u: ''}[event.key];
  let step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
  if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
    const columns = card ? getComputedStyle(card.parentNode).gridTemplateColumns.split(' ').length : 1;
    step = event.key === 'ArrowDown' ? columns : -columns;
  }
  if (verdict !== undefined && card) {
    judge(card.clip, event.key === 'r' && card.clip.verdict === 'reject' ? 'keep' : verdict);
    step = event.key === 'u' ? 0 : 1;
  } else if (step === undefined) return;
  event.preventDefault();
  const next = shown[Math.max(0, Math.min(shown.length - 1, at + step))];
  if (next) next.card.focus();
});

by('rest').addEventListener('click', () => {
  for (const clip of shown) if (!clip.verdict) judge(clip, 'keep');
});

by('save').addEventListener('click', () => {
  const cell = text => '"' + text.replaceAll('"', '""') + '"';
  // What is taken back is named as well: the set's own table remembers the verdict.
  const rows = clips.filter(c => c.verdict || c.stored).map(c => [c.file, c.sha256, c.verdict].map(cell).join(','));
  const link = make('a');
  link.href = URL.createObjectURL(new Blob(['file,sha256,verdict\n', rows.map(r => r + '\n').join('')],
    {type: 'text/csv'}));
  link.download = 'review.csv';
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  unsaved = false;
  count();
});

addEventListener('beforeunload', event => { if (unsaved) event.preventDefault(); });
list();
document.body.dataset.ready = Math.round(performance.now());
