// An operator logs in, watches, and uses each button.
import { PASSWORD, ask, browse, check, logIn, open } from './browser.mjs';

async function press(page, button) {
  const before = page.asked.length;
  // The notice of an earlier action must not pass for that of this one.
  await page.evaluate(() => document.querySelectorAll('.notice').forEach((old) => old.remove()));
  await button.click();
  await page.locator('.notice').waitFor();
  check(page.asked.length === before + 1, 'an action asks once');
  return page.textContent('.notice');
}

// Does something to all jobs that match; the server asks.
async function steer(page, name) {
  await page.check('#scope-all');
  await page.getByRole('button', { name }).click();
  await page.getByRole('button', { name: 'Yes' }).click();
  await page.locator('.notice').waitFor();
  return page.textContent('.notice');
}

const badge = (page, text) => page.locator('.facts .badge', { hasText: new RegExp(`^${text}$`) }).waitFor();

await browse(async (browser) => {
  // By a signer that the browser has.
  const page = await open(browser, { as: 'admin' });
  await page.goto('/dashboard/login');
  await page.click('#nostr-login');
  await page.waitForURL('**/dashboard');
  // A relay waits, and no worker runs: the overview says so.
  const alpha = await ask('relay', { subdomain: 'alpha', name: 'Alpha' });
  await page.getByText('No worker serves', { exact: false }).waitFor();

  // The relay goes from pending to synced while the operator looks.
  await page.goto(`/dashboard/relays/${alpha}`);
  await page.evaluate(() => { window.isSamePage = true; });
  await badge(page, 'pending');
  await ask('start_workers');
  const started = Date.now();
  await badge(page, 'synced');
  await page.locator('.timeline', { hasText: 'Synced' }).waitFor();
  check(await page.evaluate(() => window.isSamePage), 'without a reload');
  console.log(`seen synced ${Date.now() - started} ms after the workers started`);

  // The buttons of a relay.
  check((await press(page, page.getByRole('button', { name: 'Sync now' }))).includes('goes to zooid'), 'sync');
  check((await press(page, page.getByRole('button', { name: 'Deactivate' }))).includes('inactive'), 'deactivate');
  check(await ask('relay_status', { id: alpha }) === 'inactive', 'it is');
  check((await press(page, page.getByRole('button', { name: 'Mark delinquent' }))).includes('delinquent'), 'delinquent');
  check((await press(page, page.getByRole('button', { name: 'Activate', exact: true }))).includes('active now'), 'activate');
  await page.locator('.timeline', { hasText: 'Marked delinquent' }).waitFor();
  const who = await page.locator('.timeline li', { hasText: 'Deactivated' }).locator('span[title]').first().getAttribute('title');
  check(/^[0-9a-f]{64}$/.test(who), `activity says who: ${who}`);
  await page.locator('.facts .badge', { hasText: 'synced' }).waitFor();

  // What gave up is on top of the fleet, with a button that mends it.
  const broken = await ask('relay', { subdomain: 'broken', name: 'Broken' });
  await ask('fail', { id: broken, status: 422 });
  await page.goto('/dashboard');
  const item = page.locator('.item', { hasText: 'broken.zooid.test' });
  await ask('fail', { id: broken, status: 422 });
  await page.goto(`/dashboard/relays/${broken}`);
  await press(page, page.getByRole('button', { name: 'Sync now' }));
  await badge(page, 'gave up');
  await page.goto('/dashboard');
  await item.waitFor();
  await ask('heal');
  await press(page, item.getByRole('button', { name: 'Sync now' }));
  check(page.url().endsWith('/dashboard'), 'back on the page of the button');
  await item.waitFor({ state: 'detached' });
  await page.getByText('Nothing.', { exact: false }).waitFor();
  await page.goto(`/dashboard/relays/${broken}`);
  await badge(page, 'synced');

  // Killed jobs: one, and all that match.
  await page.goto('/dashboard/jobs?queue=sync-relay&state=killed');
  await ask('fail', { id: broken, status: 422 });
  const all = await steer(page, 'Retry …');
  check(all.includes('0 jobs requeued'), `a relay in step is left alone: ${all}`);
  await page.goto(`/dashboard/relays/${broken}`);
  await press(page, page.getByRole('button', { name: 'Sync now' }));
  await badge(page, 'gave up');
  await ask('heal');
  await page.goto('/dashboard');
  check(await page.locator('.item', { hasText: 'killed' }).count() === 0, 'its killed job is not reported beside it');
  await press(page, item.getByRole('button', { name: 'Sync now' }));
  await item.waitFor({ state: 'detached' });
  await page.goto('/dashboard/jobs?queue=sync-relay&state=killed');
  await page.locator('td[data-label="Job"] a').first().click();
  await page.locator('pre', { hasText: broken }).waitFor();
  await press(page, page.getByRole('button', { name: 'Retry', exact: true }));

  // A job that waits for its retry: cancelled.
  const flaky = await ask('relay', { subdomain: 'flaky', name: 'Flaky' });
  await ask('fail', { id: flaky, status: 500 });
  await page.goto(`/dashboard/relays/${flaky}`);
  await press(page, page.getByRole('button', { name: 'Sync now' }));
  await badge(page, 'failing');
  await page.goto('/dashboard/jobs?queue=sync-relay&state=retrying');
  await page.locator('td[data-label="Job"] a').first().click();
  await press(page, page.getByRole('button', { name: 'Cancel' }));
  await page.goto(`/dashboard/relays/${flaky}`);
  await badge(page, 'gave up');
  await ask('heal');

  // Pause and resume.
  await page.goto('/dashboard/queues');
  const pause = page.locator('#pause-sync-relay');
  await pause.locator('summary').click();
  await pause.getByLabel('Why?').fill('zooid gets a new disk');
  await pause.getByRole('button', { name: 'Pause sync-relay' }).click();
  await page.locator('td', { hasText: 'zooid gets a new disk' }).waitFor();
  check((await ask('paused')).length === 1, 'it is paused');
  const held = await ask('relay', { subdomain: 'held', name: 'Held' });
  await ask('age', { id: held });
  await ask('lose_jobs');
  await page.goto('/dashboard');
  const paused = page.locator('.item', { hasText: 'is paused' });
  const late = page.locator('.item', { hasText: 'has waited for zooid' });
  await paused.waitFor();
  check(await late.count() === 0, 'the pause explains why it waits');

  // What waits is snoozed with a reason. What is typed stays while the page changes.
  await paused.locator('summary').click();
  const reason = paused.getByLabel('Why can it wait?');
  await reason.fill('the disk is being replaced');
  await ask('relay', { subdomain: 'meanwhile', name: 'Meanwhile' });
  await page.locator('.number.busy .figure', { hasText: '2' }).waitFor();
  check(await reason.inputValue() === 'the disk is being replaced', 'what is typed stays');
  await paused.getByRole('button', { name: 'Snooze' }).click();
  await page.locator('.notice', { hasText: 'Snoozed for 1 h' }).waitFor();
  await page.locator('summary', { hasText: '1 snoozed' }).click();
  await page.getByText('the disk is being replaced').last().waitFor();
  await press(page, page.getByRole('button', { name: 'End snooze' }));
  await press(page, paused.getByRole('button', { name: 'Resume' }));
  await press(page, late.getByRole('button', { name: 'Reconcile now' }));
  await page.goto(`/dashboard/relays/${held}`);
  await badge(page, 'synced');

  // An outage opens the breaker; a probe ends it.
  await ask('fail', { status: 502 });
  await ask('relays', { prefix: 'out', count: 12 });
  await page.goto('/dashboard');
  const out = page.locator('.item', { hasText: 'is out' });
  await out.waitFor();
  await ask('heal');
  await press(page, out.getByRole('button', { name: 'Probe now' }));
  await out.waitFor({ state: 'detached' });

  // The table's filters follow what is typed, live.
  await page.goto('/dashboard/relays');
  await page.fill('.filters input[name=q]', 'flak');
  await page.locator('tbody tr').nth(1).waitFor({ state: 'detached' });
  check((await page.textContent('tbody')).includes('flaky.zooid.test'), 'it finds by the start of a host');
  check(page.url().includes('q=flak'), 'the address follows');

  // The key / leads to the search over everything, but not while something is typed.
  await page.keyboard.press('/');
  check(await page.inputValue('.filters input[name=q]') === 'flak/', 'a field takes the key as text');
  await page.locator('h1').click();
  await page.keyboard.press('/');
  await page.keyboard.type('lak');
  await page.keyboard.press('Enter');
  await page.waitForURL('**/dashboard/search?q=lak');
  await page.getByRole('link', { name: 'flaky.zooid.test' }).click();
  await page.locator('h1', { hasText: 'flaky.zooid.test' }).waitFor();

  // The list of jobs has pages; the workers and their jobs are linked to each other.
  await page.goto('/dashboard/jobs?queue=sync-relay');
  await page.locator('td[data-label="Job"] a').first().waitFor();
  await page.goto('/dashboard/queues');
  await page.locator('td[data-label="Workers"] a', { hasText: '1 alive' }).first().click();
  await page.locator('tr[id^="worker-"] .badge', { hasText: 'alive' }).first().waitFor();
  check(page.url().includes('/dashboard/workers?queue='), 'the workers of the queue');

  // What was done is written down.
  await page.goto('/dashboard/actions');
  const record = await page.textContent('tbody');
  for (const action of ['log in', 'relay sync', 'relay deactivate', 'relay delinquent', 'relay activate',
    'retry jobs', 'retry job', 'cancel job', 'pause queue', 'resume queue', 'probe instance', 'reconcile', 'snooze attention', 'wake attention']) {
    check(record.includes(action), `${action} is recorded`);
  }

  // A hidden page does not ask, however long it is hidden; a visible one goes on.
  const setHidden = (value) => page.evaluate((hidden) => {
    Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
  }, value);
  await page.clock.install();
  await page.goto(`/dashboard/relays/${alpha}`);
  await page.locator('#fresh .badge', { hasText: /^live$/ }).waitFor();
  await page.evaluate(() => {
    const { fetch } = window;
    window.streams = 0;
    window.fetch = (url, ...more) => {
      if (String(url).includes('/live/') && !String(url).includes('/live/attention')) window.streams += 1;
      return fetch(url, ...more);
    };
  });
  await setHidden(true);
  await page.clock.runFor(60_000);
  check(await page.evaluate(() => window.streams) === 0, 'no stream is opened while it is hidden');
  await setHidden(false);
  await page.waitForFunction(() => window.streams === 1);

  // Out again: the session is over, also for who kept its cookie.
  const cookies = await page.context().cookies();
  await page.getByRole('button', { name: 'Log out' }).click();
  await page.waitForURL('**/login');
  await page.context().addCookies(cookies);
  await page.goto('/dashboard');
  check(new URL(page.url()).pathname.endsWith('/login'), 'a revoked session is out');

  // A wrong password keeps the focus and the wanted page, and says how many tries are left.
  const deep = await open(browser);
  await deep.goto('/dashboard/relays?q=alpha');
  await deep.fill('#password', 'wrong');
  await deep.getByRole('button', { name: 'Log in', exact: true }).click();
  await deep.getByText('4 tries are left', { exact: false }).waitFor();
  check(await deep.evaluate(() => document.activeElement.id) === 'password', 'the password has the focus');
  await deep.keyboard.type(PASSWORD);
  await deep.keyboard.press('Enter');
  await deep.waitForURL('**/dashboard/relays?q=alpha');

  // By password, without scripts: the server asks.
  const plain = await open(browser, { javaScriptEnabled: false });
  await logIn(plain);
  await plain.goto(`/dashboard/relays/${alpha}`);
  await plain.getByRole('button', { name: 'Sync now' }).click();
  await plain.getByRole('button', { name: 'Yes' }).click();
  check((await plain.textContent('.notice')).includes('goes to zooid'), 'done after the question');

  // By link, once.
  const link = await ask('link');
  const linked = await open(browser);
  await linked.goto(link);
  await linked.getByRole('button', { name: 'Log in with this link' }).click();
  await linked.waitForURL('**/dashboard');
  const again = await open(browser);
  await again.goto(link);
  await again.getByRole('button', { name: 'Log in with this link' }).click();
  await again.getByText('This link was used', { exact: false }).waitFor();

  // A viewer looks and has no buttons; a stranger does not come in.
  const viewer = await open(browser, { as: 'viewer' });
  await viewer.goto('/dashboard/login');
  await viewer.click('#nostr-login');
  await viewer.waitForURL('**/dashboard');
  await viewer.goto(`/dashboard/relays/${alpha}`);
  check(await viewer.locator('form.ask').count() === 0, 'a viewer has no buttons');
  const stranger = await open(browser, { as: 'stranger' });
  await stranger.goto('/dashboard/login');
  await stranger.click('#nostr-login');
  await stranger.getByText('this key has no access', { exact: false }).waitFor();
});
