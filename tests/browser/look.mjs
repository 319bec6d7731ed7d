// Every page reads in both schemes and fits every width. Pictures of the light pages go to target/pictures, those
// that are 1280 wide without their width in the name; bin/pictures copies those of the documents.
import { ask, browse, check, checkCards, checkFits, checkReadable, checkWhole, checkWords, logIn, open } from './browser.mjs';

const IMAGES = process.env.TENDER_IMAGES ?? new URL('../../target/pictures', import.meta.url).pathname;
const WIDE = { width: 1280, height: 900 };
const NARROW = { width: 390, height: 844 };
const TABLET = { width: 768, height: 1024 };
const DESK = { width: 1440, height: 900 };
// What is checked: colours do not depend on the width, nor sizes on the scheme.
const VIEWS = [
  { viewport: WIDE, colorScheme: 'light', checks: [checkFits, checkReadable, checkWhole, checkWords], isKept: true },
  { viewport: NARROW, colorScheme: 'light', checks: [checkFits, checkCards, checkWords], isKept: true },
  { viewport: TABLET, colorScheme: 'light', checks: [checkFits, checkWhole, checkWords], isKept: true },
  { viewport: DESK, colorScheme: 'light', checks: [checkFits, checkWhole, checkWords], isKept: true },
  { viewport: WIDE, colorScheme: 'dark', checks: [checkReadable] },
];

await browse(async (browser) => {
  await ask('relays', { prefix: 'garden', count: 12 });
  const broken = await ask('relay', { subdomain: 'broken', name: 'A relay that zooid refuses' });
  await ask('fail', { id: broken, status: 422 });
  const flaky = await ask('relay', { subdomain: 'flaky', name: 'A relay that fails once' });
  await ask('fail', { id: flaky, status: 502 });
  await ask('relays', { prefix: 'meadow', count: 30 });
  const upstream = await ask('upstream', {});
  await ask('grasp_rows');
  await ask('start_workers'); // when every fault is planned
  const first = await open(browser);
  await logIn(first);
  await first.getByText('gave up', { exact: false }).first().waitFor();
  await first.locator('.number.warn .figure', { hasText: '1' }).waitFor();

  await first.goto('/dashboard/jobs?state=killed');
  const job = await first.locator('td[data-label="Job"] a').first().getAttribute('href');

  const pages = [
    ['fleet', '/dashboard'],
    ['relays', '/dashboard/relays'],
    ['relay', `/dashboard/relays/${flaky}`],
    ['queues', '/dashboard/queues'],
    ['jobs', '/dashboard/jobs'],
    ['killed', '/dashboard/jobs?state=killed'],
    ['job', job],
    ['workers', '/dashboard/workers'],
    ['actions', '/dashboard/actions'],
    ['upstreams', '/dashboard/upstreams'],
    ['upstream', `/dashboard/upstreams/${upstream}`],
    ['events', '/dashboard/events'],
    ['repositories', '/dashboard/repositories'],
    ['repository', `/dashboard/repository?address=30617:${'a'.repeat(64)}:alpha`],
    ['followed', '/dashboard/followed'],
    ['followed-relay', '/dashboard/followed/00000000-0000-0000-0000-00000000000b'],
    ['parked', '/dashboard/parked?reason=orphan'],
  ];
  for (const { viewport, colorScheme, checks, isKept } of VIEWS) {
    const page = await open(browser, { viewport, colorScheme });
    const view = `${viewport.width} ${colorScheme}`;
    await page.goto('/dashboard/login');
    for (const holds of checks) await holds(page, `login ${view}`);
    page.failures = [];
    await logIn(page);
    for (const [name, path] of pages) {
      const where = `${name} ${view}`;
      await page.goto(path);
      await page.locator('h1').waitFor();
      await page.waitForFunction(() => [...document.querySelectorAll('time[data-relative]')]
        .every((time) => /ago|in /.test(time.textContent)));
      check(page.failures.length === 0, `no errors in the console of ${where}: ${page.failures}`);
      for (const holds of checks) await holds(page, where);
      const width = viewport === WIDE ? '' : `-${viewport.width}`;
      if (isKept) await page.screenshot({ path: `${IMAGES}/${name}${width}.png`, fullPage: true });
      page.failures = []; // the checks' own styles are refused too
    }
    await page.context().close();
  }

  // Everything can be read without scripts.
  const plain = await open(browser, { javaScriptEnabled: false });
  await logIn(plain);
  await plain.goto(`/dashboard/relays/${broken}`);
  check((await plain.textContent('.timeline')).includes('422'), 'the timeline reads without scripts');
  await plain.goto('/dashboard');
  await plain.click('summary:has-text("Figures per minute")');
  check(await plain.isVisible('tender-chart table'), 'so do the figures of the chart');
});
