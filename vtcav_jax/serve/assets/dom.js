// Small functions for elements and numbers.
export const by = id => document.getElementById(id);

export function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

// Fill a menu with [value, text] pairs and select `value`, or the first entry if there is no such one.
export function fillMenu(menu, entries, value) {
  const same = menu.options.length === entries.length &&
    entries.every(([v, t], i) => menu.options[i].value === v && menu.options[i].text === t);
  if (!same) {
    menu.replaceChildren(...entries.map(([v, t]) => {
      const option = make('option', '', t);
      option.value = v;
      return option;
    }));
  }
  menu.value = entries.some(([v]) => v === value) ? value : (entries[0]?.[0] ?? '');
  return menu.value;
}

export function format(value) {
  if (value === null || value === undefined) return 'unknown';
  const text = Math.abs(value) >= 1e5 || (value !== 0 && Math.abs(value) < 1e-3) ? value.toExponential(1) : value.toPrecision(3);
  return String(Number(text)).replace('-', '−');
}

export const percent = value => value > 0.999 ? '> 99.9 %' : value < 0.001 ? '< 0.1 %' : (100 * value).toFixed(1) + ' %';

export const readable = vector => {
  const parts = vector.split('/');
  const negatives = parts.pop(), kind = parts.pop();
  return kind === undefined ? vector : parts.join('/') + ' (' + kind + ') against ' + negatives;
};

// Make a canvas as sharp as the screen; returns its context and its size in CSS pixels.
export function sized(canvas, height) {
  const ratio = devicePixelRatio || 1, width = canvas.clientWidth || canvas.parentNode.clientWidth || 300;
  canvas.style.height = height + 'px';
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const context = canvas.getContext('2d');
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return [context, width, height];
}

export const colour = name => getComputedStyle(document.documentElement).getPropertyValue('--' + name).trim();
