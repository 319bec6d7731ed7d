// Charts: lines over slots of time, with marks. The pointer reads the values of a slot and names its marks.
// The tables beside the plot have the same figures as text.
//
// <tender-chart data-series='[["synced","good"],…]' data-points='[[at, value, …],…]' data-marks='[[at, text],…]'
//               data-unit="ms">: times are in seconds; a value may be null.

const MARK_NEAR = 6; // pixels between the pointer and a mark that it names

class TenderChart extends HTMLElement {
  static observedAttributes = ['data-points', 'data-marks'];

  connectedCallback() {
    const root = this.shadowRoot ?? this.attachShadow({ mode: 'open' });
    root.innerHTML = '<link rel="stylesheet" href="/dashboard/assets/uplot.min.css">'
      + '<div part="plot" aria-hidden="true"></div><p part="marks" aria-hidden="true"></p><slot></slot>';
    [this.plot, this.near] = root.querySelectorAll('div, p');
    this.sized = new ResizeObserver(() => this.chart?.setSize(this.size()));
    this.sized.observe(this);
    this.scheme = window.matchMedia('(prefers-color-scheme: dark)');
    this.again = () => { this.chart?.destroy(); this.chart = null; this.draw(); };
    this.scheme.addEventListener('change', this.again);
    this.draw();
  }

  disconnectedCallback() {
    this.sized?.disconnect();
    this.scheme?.removeEventListener('change', this.again);
    this.chart?.destroy();
    this.chart = null;
  }

  attributeChangedCallback() {
    if (this.plot) this.draw();
  }

  size() {
    return { width: Math.max(this.clientWidth, 200), height: 180 };
  }

  // The value of a colour now. A canvas does not know `light-dark()`; a computed colour is plain.
  color(name) {
    this.style.setProperty('color', `var(--${name})`);
    const { color } = getComputedStyle(this);
    this.style.removeProperty('color');
    return color;
  }

  draw() {
    const points = JSON.parse(this.dataset.points || '[]');
    const series = JSON.parse(this.dataset.series || '[]');
    this.marks = JSON.parse(this.dataset.marks || '[]');
    const data = Array.from({ length: series.length + 1 }, (_, column) => points.map((point) => point[column]));
    if (this.chart) return this.chart.setData(data);
    this.chart = new uPlot(this.options(series, points), data, this.plot);
  }

  options(series, points) {
    const days = points.length > 1 && points.at(-1)[0] - points[0][0] > 86_400;
    const clock = new Intl.DateTimeFormat([], { ...(days && { day: '2-digit', month: 'short' }), hour: '2-digit', minute: '2-digit', hour12: false });
    const unit = this.dataset.unit ? ` ${this.dataset.unit}` : '';
    const value = (_, number) => (number == null ? '–' : `${number.toLocaleString()}${unit}`);
    const axis = {
      stroke: this.color('quiet'), grid: { stroke: this.color('line'), width: 1 }, ticks: { stroke: this.color('line'), width: 1 },
    };
    return {
      ...this.size(),
      cursor: { drag: { x: false, y: false } },
      axes: [
        { ...axis, space: days ? 110 : 60, values: (_, times) => times.map((at) => clock.format(at * 1000)) },
        { ...axis, size: (_, texts) => 20 + 8 * Math.max(0, ...(texts ?? []).map((text) => text.length)), values: (_, numbers) => numbers.map((number) => number.toLocaleString() + unit) },
      ],
      scales: { y: { range: (_, low, high) => [0, Math.max(high, 4)] } },
      series: [
        { label: 'from', value: (_, at) => (at == null ? '–' : clock.format(at * 1000)) },
        ...series.map(([label, color]) => ({
          label, value, stroke: this.color(color), fill: color === 'good' ? this.color('good-fill') : undefined, width: 2, points: { show: false },
        })),
      ],
      hooks: { draw: [(plot) => this.drawMarks(plot)], setCursor: [(plot) => this.nameMarks(plot)] },
    };
  }

  drawMarks({ ctx, bbox, valToPos }) {
    ctx.save();
    ctx.strokeStyle = this.color('warn');
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash([4, 4]);
    for (const [at] of this.marks) {
      const x = valToPos(at, 'x', true);
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  }

  nameMarks({ cursor: { left }, valToPos }) {
    const near = this.marks.filter(([at]) => left >= 0 && Math.abs(valToPos(at, 'x') - left) <= MARK_NEAR);
    const text = near.map(([, words]) => words).join(' · ');
    if (this.near.textContent !== text) this.near.textContent = text;
  }
}
customElements.define('tender-chart', TenderChart);
