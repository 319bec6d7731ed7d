// What scripts add to every page: relative times and confirmations. `live.js` has the live parts, `chart.js`
// the charts.

const SPANS = [[86400, 'd'], [3600, 'h'], [60, 'min'], [1, 's']];

function span(seconds) {
  const first = SPANS.findIndex(([size]) => seconds >= size);
  if (first < 0) return '0 s';
  return SPANS.slice(first, first + 2).map(([size, name], place) => {
    const whole = place ? Math.floor((seconds % SPANS[first][0]) / size) : Math.floor(seconds / size);
    return `${whole} ${name}`;
  }).join(' ');
}

function tell() {
  for (const time of document.querySelectorAll('time[data-relative]')) {
    const seconds = Math.round((new Date(time.dateTime) - Date.now()) / 1000);
    const lasts = time.dataset.relative === 'for';
    const text = lasts ? `for ${span(Math.max(0, -seconds))}` : seconds > 0 ? `in ${span(seconds)}` : `${span(-seconds)} ago`;
    time.title ||= new Date(time.dateTime).toISOString();
    if (time.textContent !== text) time.textContent = text;
  }
}

setInterval(tell, 1000);
new MutationObserver(tell).observe(document, { childList: true, subtree: true });
tell();

// Each action needs a confirmation. Without scripts the server asks for it.
document.addEventListener('submit', (event) => {
  const form = event.target;
  if (!form.dataset.ask || form.elements.confirmed) return;
  if (!window.confirm(form.dataset.ask)) return event.preventDefault();
  const confirmed = Object.assign(document.createElement('input'), {
    type: 'hidden', name: 'confirmed', value: 'yes',
  });
  form.append(confirmed);
});

// Selects every job of the page.
function offerAll() {
  for (const label of document.querySelectorAll('label.all')) label.hidden = false;
}
offerAll();
new MutationObserver(offerAll).observe(document, { childList: true, subtree: true });
document.addEventListener('change', ({ target }) => {
  if (target.id !== 'pick-all') return;
  for (const box of target.form.querySelectorAll('input[name=job]')) box.checked = target.checked;
});
