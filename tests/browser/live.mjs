// A page has one stream, says how old its content is, and says when it is not live and why.
// With TENDER_LOOK, pictures of a page in these states go there.
import { ask, browse, check, checkReadable, logIn, open } from './browser.mjs';

const LOOK = process.env.TENDER_LOOK;

// The streams of a page that are open now.
function streams(page) {
  const now = new Set();
  const isStream = (request) => request.url().includes('/dashboard/live/');
  page.on('request', (request) => { if (isStream(request)) now.add(request); });
  for (const end of ['requestfinished', 'requestfailed']) page.on(end, (request) => now.delete(request));
  return now;
}

const isLive = (page) => page.locator('#fresh .badge', { hasText: /^live$/ }).waitFor();
// A page that is not live can still be read, in both schemes.
async function checkStale(page, state) {
  check(await page.locator('#live.stale').count() === 1, `the content is greyed: ${state}`);
  for (const colorScheme of ['dark', 'light']) {
    await page.emulateMedia({ colorScheme });
    if (LOOK) await page.screenshot({ path: `${LOOK}/${state}-${colorScheme}.png`, fullPage: true });
    await checkReadable(page, `a page: ${state}, ${colorScheme}`);
  }
}

const banner = (page, text) => page.locator('#banner', { hasText: text }).waitFor();

await browse(async (browser) => {
  await ask('relays', { prefix: 'garden', count: 12 });
  await ask('relays', { prefix: 'meadow', count: 3 });
  const alpha = await ask('relay', { subdomain: 'alpha', name: 'Alpha' });
  const page = await open(browser);
  await logIn(page);

  // Ten changes of the filters leave one stream, and the rows of the last filter.
  const openNow = streams(page);
  await page.goto('/dashboard/relays');
  await isLive(page);
  for (const text of ['g', 'ga', 'gar', 'gard', 'garde', 'garden', 'garden-1', 'garden-11', 'm', 'meadow']) {
    const followed = page.waitForRequest((request) => request.url().includes('/live/relays') && new URL(request.url()).searchParams.get('q') === text);
    await page.fill('.filters input[name=q]', text);
    await followed;
  }
  await page.waitForFunction(() => document.querySelectorAll('tbody tr').length === 3);
  check((await page.textContent('tbody')).includes('meadow-0'), 'the rows are those of the last filter');
  check(openNow.size === 1, `one stream is open, not ${openNow.size}`);
  const answers = await page.evaluate(async () => (await fetch('/dashboard/session')).status);
  check(answers === 204, 'the page can still ask');

  // Paused, the page stays as it is and grows old; live again, it is of now.
  await page.getByRole('button', { name: 'Pause' }).click();
  await page.locator('#fresh .badge', { hasText: 'paused' }).waitFor();
  await page.waitForFunction(() => !/read [01] s/.test(document.querySelector('#fresh .age').textContent));
  check(openNow.size === 0, 'a paused page has no stream');
  await ask('relays', { prefix: 'meadow-late', count: 1 });
  await page.waitForFunction(() => /read ([4-9]|\d\d) s/.test(document.querySelector('#fresh .age').textContent));
  check(await page.locator('tbody tr').count() === 3, 'nothing changes while it is paused');
  await page.getByRole('button', { name: 'Go live' }).click();
  await page.getByText('meadow-late-0').first().waitFor();
  await isLive(page);

  // The title of the tab counts what needs attention: no worker serves sync-relay.
  await page.waitForFunction(() => /^\([1-9]\d*\) Relays/.test(document.title));
  await page.goto('/dashboard');
  check(/^\([1-9]\d*\) Fleet/.test(await page.title()), 'so does that of the overview, before any script');

  // A hidden tab has no stream. Its title counts all the same, once a minute.
  const hidden = await page.context().newPage();
  await hidden.clock.install();
  await hidden.goto('/dashboard/relays');
  await hidden.waitForFunction(() => /^\([1-9]\d*\) Relays/.test(document.title));
  const ofHidden = streams(hidden);
  await hidden.evaluate(() => {
    Object.defineProperty(document, 'hidden', { value: true, configurable: true });
    document.dispatchEvent(new Event('visibilitychange'));
  });
  const counted = Number(/^\((\d+)\)/.exec(await hidden.title())[1]);
  await ask('killed_jobs');
  await page.waitForFunction((number) => document.title.startsWith(`(${number}) Fleet`), counted + 1);
  check((await hidden.title()).startsWith(`(${counted}) `), 'it asks once a minute only');
  const asked = hidden.waitForRequest('**/dashboard/live/attention');
  await hidden.clock.fastForward(61_000);
  await asked;
  await hidden.waitForFunction((number) => document.title.startsWith(`(${number}) Relays`), counted + 1);
  check([...ofHidden].every((one) => one.url().endsWith('/attention')), 'a hidden page opens no stream');
  await hidden.close();

  // What the reader opened stays open, and what the reader types stays typed, while the page changes.
  await page.goto(`/dashboard/relays/${alpha}`);
  await isLive(page);
  await page.click('summary:has-text("The body of the next")');
  await ask('rename', { id: alpha, name: 'Another name' });
  await page.locator('.timeline', { hasText: 'Another name' }).waitFor();
  check(await page.locator('details pre').isVisible(), 'the details are still open');

  // A database that does not answer is not "all in step".
  await ask('break_database');
  await banner(page, 'The database does not answer since');
  await checkStale(page, 'no-database');
  await ask('mend_database');
  await page.locator('#banner').waitFor({ state: 'hidden' });
  await isLive(page);

  // A server that hangs, with its connections open.
  await ask('silence');
  await banner(page, 'Disconnected since');
  await checkStale(page, 'disconnected');
  await ask('reopen');
  await page.locator('#banner').waitFor({ state: 'hidden' });
  await isLive(page);

  // A server that dies.
  const beside = await ask('beside');
  const other = await open(browser);
  await other.context().addCookies((await page.context().cookies()).map((one) => ({ ...one, domain: new URL(beside).hostname })));
  await other.goto(`${beside}/dashboard/relays`);
  await isLive(other);
  await ask('stop_beside');
  await banner(other, 'Disconnected since');

  // A session that ends.
  await page.goto('/dashboard/relays?q=alpha');
  await isLive(page);
  await ask('end_sessions');
  await banner(page, 'Your session has ended');
  await checkStale(page, 'session-ended');
  await page.locator('#banner a').click();
  await page.waitForURL('**/dashboard/login?next=*');
});
