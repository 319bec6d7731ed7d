// The live part of a page: one stream, which the server ends with the session. The page says how old its
// content is, whether it is live, and why not.

const FRESH = 5_000; // the server reads once a second; a part that is older is not live
const SILENT = 15_000; // a connection that brings nothing for so long is opened again
const HIDDEN = 60_000; // a hidden page has no stream; it asks so often for the number in its title
const RETRIES = [1_000, 2_000, 4_000, 8_000, 15_000]; // between two attempts to connect

const part = document.getElementById('live');
const fresh = document.getElementById('fresh');
const banner = document.getElementById('banner');
const title = document.title.replace(/^\(\d+\) /, '');
let items = Number(/^\((\d+)\) /.exec(document.title)?.[1] ?? 0); // that need attention

// The messages of a stream: `event:` and `data:` lines, then an empty line.
async function* messages(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split('\n\n');
    rest = blocks.pop();
    for (const block of blocks) {
      const lines = (name) => block.split('\n').filter((line) => line.startsWith(`${name}:`))
        .map((line) => line.slice(name.length + 1).replace(/^ /, '')).join('\n');
      yield { event: lines('event') || 'part', data: lines('data') };
    }
  }
}

class Live {
  state = 'connecting'; // or live, paused, ended, gone, failed (the database), lost
  readAt = Date.now();
  heardAt = Date.now();
  #openedAt = Date.now();
  #attempt = null;

  // Shows another source. The stream of the one before ends first.
  open(source) {
    this.close();
    this.source = source;
    if (document.hidden) return;
    this.#openedAt = Date.now();
    this.heardAt = Date.now();
    this.#read(this.#attempt = new AbortController());
  }

  close() {
    this.#attempt?.abort();
    this.#attempt = null;
  }

  pause() {
    this.close();
    this.tell('paused');
  }

  resume(source = this.source) {
    this.tell('connecting');
    this.open(source);
  }

  tell(state) {
    this.state = state;
    show();
  }

  // Looks whether the stream still speaks. A connection that died without an end is opened again.
  look() {
    if (!this.#attempt) return;
    const now = Date.now();
    if (['live', 'connecting'].includes(this.state) && now - Math.max(this.readAt, this.#openedAt) > FRESH) this.tell('lost');
    if (now - this.heardAt > SILENT) this.open(this.source);
  }

  // Asks how many items need attention: the title of a hidden tab is all that is seen of it.
  async count() {
    if (!document.hidden || ['paused', 'ended', 'gone'].includes(this.state)) return;
    try {
      const response = await fetch('/dashboard/live/attention', { signal: AbortSignal.timeout(SILENT) });
      if (response.status === 401) return this.#end('ended');
      if (response.ok) items = Number(await response.text());
      if (document.hidden) this.tell(response.ok ? 'connecting' : 'lost');
    } catch {
      if (document.hidden) this.tell('lost');
    }
  }

  async #read(attempt) {
    const { signal } = attempt;
    for (let tries = 0; !signal.aborted; tries += 1) {
      try {
        const response = await fetch(this.source, { headers: { accept: 'text/event-stream' }, signal });
        if (response.status === 401) return this.#end('ended');
        if (response.status === 404) return this.#end('gone');
        if (response.ok) {
          for await (const message of messages(response.body)) {
            if (signal.aborted) return;
            if (message.event === 'ended' || message.event === 'gone') return this.#end(message.event);
            this.#take(message);
            tries = 0;
          }
        }
      } catch { /* The loop connects again. */ }
      if (signal.aborted) return;
      this.tell('lost');
      const wait = RETRIES[Math.min(tries, RETRIES.length - 1)];
      await new Promise((goOn) => { setTimeout(goOn, wait); });
      this.heardAt = Date.now();
    }
  }

  #take({ event, data }) {
    this.heardAt = Date.now();
    if (event === 'failed') return this.tell('failed');
    if (event === 'attention') return entitle(Number(data));
    if (event === 'part') htmx.swap({ text: data, target: part, sourceElement: part, swap: 'innerMorph' });
    this.readAt = Date.now();
    this.tell('live');
  }

  #end(state) {
    this.close();
    this.tell(state);
  }
}

// The number of items that need attention, in the title of the tab.
function entitle(number) {
  items = number;
  show();
}

const WHY = {
  ended: (since) => `Your session has ended. What you see is from ${since}.`,
  gone: (since) => `This no longer exists. What you see is from ${since}.`,
  failed: (since) => `The database does not answer since ${since}. Trying again …`,
  lost: (since) => `Disconnected since ${since}: Tender does not answer. Trying again …`,
};

// Says what the content is worth: its age, and a banner if it is not what it should be.
function show() {
  const seconds = Math.max(0, Math.round((Date.now() - live.readAt) / 1000));
  const why = WHY[live.state];
  fresh.querySelector('.badge').className = `badge ${{ live: 'good', paused: 'off', connecting: 'off' }[live.state] ?? 'bad'}`;
  fresh.querySelector('.badge').textContent = why ? 'not live' : live.state;
  fresh.querySelector('.age').textContent = `read ${span(seconds)} ago`;
  const button = fresh.querySelector('button');
  button.hidden = live.state === 'ended' || live.state === 'gone';
  button.textContent = live.state === 'paused' ? 'Go live' : 'Pause';
  part.classList.toggle('stale', Boolean(why));
  document.title = (why ? '(!) ' : items ? `(${items}) ` : '') + title;
  if (banner.dataset.state === live.state) return;
  banner.dataset.state = live.state;
  banner.hidden = !why;
  banner.querySelector('span').textContent = why ? why(new Date(live.readAt).toLocaleTimeString([], { hour12: false })) : '';
  const logIn = banner.querySelector('a');
  logIn.hidden = live.state !== 'ended';
  logIn.href = `/dashboard/login?next=${encodeURIComponent(location.pathname + location.search)}`;
}

const live = part && new Live();
if (live) {
  live.open(part.dataset.source);
  show();
  setInterval(() => { live.look(); show(); }, 1000);
  fresh.querySelector('button').addEventListener('click', () => (live.state === 'paused' ? live.resume() : live.pause()));
  setInterval(() => live.count(), HIDDEN);
  // A hidden page shows nothing, and the server reads nothing for it.
  document.addEventListener('visibilitychange', () => {
    if (document.hidden) live.close();
    else if (!['paused', 'ended', 'gone'].includes(live.state)) live.resume();
  });
}

// The filters of a list: the address and the live part follow the input.
for (const form of document.querySelectorAll('form[data-filters]')) {
  let waiting;
  const follow = () => {
    const query = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
    history.replaceState(null, '', `?${query}`);
    live.resume(`/dashboard/live${form.dataset.filters}?${query}`);
  };
  form.addEventListener('input', () => { clearTimeout(waiting); waiting = setTimeout(follow, 300); });
}
