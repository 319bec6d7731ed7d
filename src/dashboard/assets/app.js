// What scripts add to every page: relative times, confirmations, the chart. `live.js` has the live parts.

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
    const text = seconds > 0 ? `in ${span(seconds)}` : `${span(-seconds)} ago`;
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

// The key / leads to the search over everything, unless a field has the focus.
document.addEventListener('keydown', (event) => {
  const typing = event.target.closest?.('input, select, textarea, [contenteditable]');
  if (event.key !== '/' || typing || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  document.querySelector('#find')?.select();
  document.querySelector('#find')?.focus();
});

// The chart of syncs and failures per minute. The table inside it has the same figures as text.
class SyncChart extends HTMLElement {
  static observedAttributes = ['data-points'];

  connectedCallback() {
    const root = this.shadowRoot ?? this.attachShadow({ mode: 'open' });
    root.innerHTML = '<link rel="stylesheet" href="/dashboard/assets/uplot.min.css">'
      + '<div part="plot" aria-hidden="true"></div><slot></slot>';
    this.plot = root.querySelector('div');
    this.sized = new ResizeObserver(() => this.chart?.setSize(this.size()));
    this.sized.observe(this);
    this.scheme = window.matchMedia('(prefers-color-scheme: dark)');
    this.scheme.onchange = () => { this.chart?.destroy(); this.chart = null; this.draw(); };
    this.draw();
  }

  disconnectedCallback() {
    this.sized?.disconnect();
    this.chart?.destroy();
    this.chart = null;
  }

  attributeChangedCallback() {
    if (this.plot) this.draw();
  }

  size() {
    return { width: Math.max(this.clientWidth, 200), height: 180 };
  }

  draw() {
    const points = JSON.parse(this.dataset.points || '[]');
    const data = [0, 1, 2].map((column) => points.map((point) => point[column]));
    if (this.chart) return this.chart.setData(data);
    const color = (name) => getComputedStyle(this).getPropertyValue(name).trim();
    const clock = new Intl.DateTimeFormat([], { hour: '2-digit', minute: '2-digit', hour12: false });
    const axis = { stroke: color('--quiet'), grid: { stroke: color('--line') }, ticks: { stroke: color('--line') } };
    this.chart = new uPlot({
      ...this.size(),
      legend: { live: false },
      cursor: { drag: { x: false, y: false } },
      axes: [{ ...axis, values: (_, times) => times.map((at) => clock.format(at * 1000)) }, { ...axis, size: 44 }],
      scales: { y: { range: (_, low, high) => [0, Math.max(high, 4)] } },
      series: [
        { label: 'time' },
        { label: 'synced per minute', stroke: color('--good'), fill: color('--good-fill'), width: 2, points: { show: false } },
        { label: 'failed per minute', stroke: color('--bad'), width: 2, points: { show: false } },
      ],
    }, data, this.plot);
  }
}
customElements.define('tender-chart', SyncChart);
