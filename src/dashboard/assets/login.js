// Asks the browser's signer for an event, which is valid for one login here.
const button = document.getElementById('nostr-login');
const problem = document.getElementById('nostr-problem');

function say(text) {
  problem.textContent = text;
  problem.hidden = false;
}

async function logIn() {
  if (!window.nostr) return say('This browser has no Nostr signer (NIP-07). Install one and reload the page.');
  const url = button.dataset.url;
  const event = await window.nostr.signEvent({
    kind: 27235,
    created_at: Math.floor(Date.now() / 1000),
    tags: [['u', url], ['method', 'POST'], ['nonce', crypto.randomUUID()]],
    content: '',
  });
  const token = btoa(unescape(encodeURIComponent(JSON.stringify(event))));
  const response = await fetch('/dashboard/login/nostr', {
    method: 'POST',
    headers: { authorization: `Nostr ${token}` },
  });
  const answer = await response.json();
  if (response.ok) location.assign(button.dataset.next);
  else say(answer.error);
}

button?.addEventListener('click', () => logIn().catch((error) => say(`The login event was not signed: ${error.message}`)));
