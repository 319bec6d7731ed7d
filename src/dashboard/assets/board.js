// The board asks for /api/v1 and takes its pages' addresses from the root. Both are true within this
// frame only: requests are moved under our path, and the address is the root's until a reload.
const { base, script, wasm } = document.currentScript?.dataset
  ?? document.querySelector('script[data-base]').dataset;
const request = window.fetch.bind(window);
window.fetch = (input, options) => {
  const url = new URL(input instanceof Request ? input.url : input, location.origin);
  if (url.origin === location.origin && url.pathname.startsWith('/api/v1')) {
    url.pathname = base + url.pathname;
    return request(input instanceof Request ? new Request(url, input) : url, options);
  }
  return request(input, options);
};
const Events = window.EventSource;
window.EventSource = function (url, options) {
  const moved = new URL(url, location.origin);
  if (moved.pathname.startsWith('/api/v1')) moved.pathname = base + moved.pathname;
  return new Events(moved, options);
};
history.replaceState(null, '', '/');
const board = await import(`${base}/files/${script}`);
await board.default({ module_or_path: `${base}/files/${wasm}` });
