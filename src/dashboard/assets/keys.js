// The keyboard, and buttons that copy. Keys do nothing while the reader types.

document.documentElement.classList.add('scripts');

const KEYS = [
  ['/', 'search'],
  ['f', 'to the first filter'],
  ['j', 'next row'], ['k', 'row before'], ['Enter', 'open the row'],
  ['n', 'next page of the list'], ['p', 'page before'],
  ['.', 'pause the page, or go live'],
  ['?', 'this help'], ['Esc', 'close'],
];

const isTyping = (element) => element.closest('input, select, textarea, [contenteditable]');
const rows = () => [...document.querySelectorAll('main tbody tr')].filter((row) => row.checkVisibility());

// Moves to another row: its first link has the focus, so that Enter opens it and a reader hears it.
function move(by) {
  const all = rows();
  const now = all.findIndex((row) => row.contains(document.activeElement));
  const next = all[Math.min(Math.max(now < 0 ? (by > 0 ? 0 : all.length - 1) : now + by, 0), all.length - 1)];
  next?.querySelector('a, button, input')?.focus();
  next?.scrollIntoView({ block: 'nearest' });
}

function help() {
  const lines = KEYS.map(([key, what]) => `<dt><kbd>${key}</kbd></dt><dd>${what}</dd>`).join('');
  const dialog = document.createElement('dialog');
  dialog.setAttribute('aria-labelledby', 'keys');
  dialog.innerHTML = `<h2 id="keys">Keys</h2><dl class="facts">${lines}</dl><form method="dialog"><button>Close</button></form>`;
  dialog.addEventListener('close', () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

function search() {
  const field = document.querySelector('header input[type=search]');
  if (field) field.focus();
  else location.assign('/dashboard/search');
}

const follow = (rel) => document.querySelector(`main a[rel=${rel}]`)?.click();
const DO = {
  '/': search,
  f: () => document.querySelector('main .filters :is(input, select)')?.focus(),
  j: () => move(1),
  k: () => move(-1),
  n: () => follow('next'),
  p: () => follow('prev'),
  '.': () => document.querySelector('#fresh button:not([hidden])')?.click(),
  '?': help,
};

document.addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target) || document.querySelector('dialog[open]')) return;
  const act = DO[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

// Says on the button that it has copied, or that the browser refused.
document.addEventListener('click', async (event) => {
  const button = event.target.closest('[data-copy]');
  if (!button) return;
  const copied = await navigator.clipboard.writeText(button.dataset.copy).then(() => true, () => false);
  button.textContent = copied ? 'Copied' : 'Not copied';
  setTimeout(() => { button.textContent = 'Copy'; }, 2000);
});
