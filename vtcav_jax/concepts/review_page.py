"""The text of `review.html`: markup, style and script, with marks where `review` puts the clips."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; media-src data:;
 style-src 'unsafe-inline'; script-src 'sha256-@allowed'; base-uri 'none'; form-action 'none'">
<title>Review of @name</title>
<style>@style</style>
</head>
<body>
<header>
<div class="bar">
<label>concept <select id="concept"></select></label>
<label>kind <select id="kind"></select></label>
<label>show <select id="state">
<option value="">all</option><option value="none">not looked at</option>
<option value="keep">kept</option><option value="reject">rejected</option></select></label>
<label>sort <select id="sort">
<option value="up">least sure first</option><option value="down">surest first</option>
<option value="source">by video</option></select></label>
<label>confidence at most <input id="most" type="range" min="0" max="1" step="0.01" value="1"><output id="at">1</output>
</label>
<button id="rest" type="button">Keep the rest shown</button>
<button id="save" type="button">Save review.csv</button>
</div>
<p class="bar"><span id="counts" role="status"></span>
<span class="help">click or <kbd>r</kbd> rejects (again: keeps), <kbd>k</kbd> keeps, <kbd>u</kbd> undoes, arrows move;
a dynamic clip takes its controls with it. Put the saved file into this page's folder: reading the set and mining again
go by it.</span></p>
</header>
<main id="main"></main>
<script type="application/json" id="data">@data</script>
<script>@script</script>
</body>
</html>
"""

STYLE = """
:root { color-scheme: light dark; --keep: #18794e; --reject: #c62a2f; --line: #8888; }
* { box-sizing: border-box; }
body { margin: 0; font: 14px/1.4 system-ui, sans-serif; background: Canvas; color: CanvasText; }
header { position: sticky; top: 0; z-index: 1; background: Canvas; border-bottom: 1px solid var(--line);
 padding: 8px 16px; }
.bar { display: flex; flex-wrap: wrap; gap: 6px 14px; align-items: center; margin: 4px 0; }
.help { opacity: .75; }
#counts { font-weight: 600; }
#save.unsaved { outline: 2px solid var(--reject); }
kbd { border: 1px solid var(--line); border-radius: 3px; padding: 0 4px; }
main { padding: 0 16px 40vh; }
h2 { font-size: 16px; margin: 18px 0 6px; }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(128px, 1fr)); gap: 8px; }
.card { border: 3px solid transparent; border-radius: 6px; padding: 3px; cursor: pointer; text-align: left;
 background: none; font: inherit; color: inherit; content-visibility: auto; contain-intrinsic-size: 130px 176px;
 scroll-margin: 130px; min-width: 0; }
.card:focus-visible { outline: 3px solid Highlight; }
.view { display: block; width: 100%; aspect-ratio: 1; background: #000; border-radius: 3px; overflow: hidden; }
.view > * { display: block; width: 100%; height: 100%; }
.card.keep { border-color: var(--keep); }
.card.reject { border-color: var(--reject); }
.card.reject .view { opacity: .3; }
.what { display: block; font-size: 12px; line-height: 1.3; overflow: hidden; text-overflow: ellipsis;
 white-space: nowrap; }
.verdict { font-weight: 600; }
.keep .verdict { color: var(--keep); }
.reject .verdict { color: var(--reject); }
"""

SCRIPT = r"""
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
"""
