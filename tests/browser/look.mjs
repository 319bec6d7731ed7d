// Every page reads in both schemes and fits all widths. Pictures of the light pages at 1280 px go to
// target/pictures; bin/pictures copies those of the documents. With TENDER_LOOK, pictures of all views go there.
import { ask, browse, check, checkCards, checkFits, checkReadable, checkTables, logIn, open } from './browser.mjs';

const IMAGES = process.env.TENDER_IMAGES ?? new URL('../../target/pictures', import.meta.url).pathname;
const LOOK = process.env.TENDER_LOOK;
const view = (width, colorScheme, checks, isKept = false) => ({ viewport: { width, height: 900 }, colorScheme, checks, isKept });
const SIZES = [checkFits, checkCards, checkTables];
// What is checked: colours do not depend on the width, nor sizes on the scheme.
const VIEWS = [
  view(1440, 'light', SIZES),
  view(1280, 'light', [...SIZES, checkReadable], true),
  view(768, 'light', SIZES),
  view(390, 'light', [...SIZES, checkReadable]),
  view(1280, 'dark', [checkReadable]),
];

// What is wrong with any page, so that one run tells everything.
const wrong = [];
async function note(checked) {
  await checked.catch((error) => wrong.push(error.message));
}

// Looks at the pages in every view.
async function look(browser, pages, state = '') {
  for (const { viewport, colorScheme, checks, isKept } of VIEWS) {
    const page = await open(browser, { viewport, colorScheme });
    const shown = `${viewport.width} ${colorScheme}`;
    await page.goto('/dashboard/login');
    for (const holds of checks) await note(holds(page, `login ${shown}`));
    page.failures = [];
    await logIn(page);
    for (const [name, path] of pages) {
      const where = `${name}${state} ${shown}`;
      await page.goto(path);
      await page.locator('h1').waitFor();
      await page.waitForFunction(() => [...document.querySelectorAll('time[data-relative]')]
        .every((time) => /ago|in |for /.test(time.textContent)));
      check(page.failures.length === 0, `no errors in the console of ${where}: ${page.failures}`);
      if (LOOK) await page.screenshot({ path: `${LOOK}/${where.replaceAll(' ', '-')}.png`, fullPage: true });
      for (const holds of checks) await note(holds(page, where));
      if (isKept && !state) await page.screenshot({ path: `${IMAGES}/${name}.png`, fullPage: true });
      page.failures = []; // the checks' own styles are refused too
    }
    await page.context().close();
  }
}

const EMPTY = [
  ['fleet', '/dashboard'],
  ['charts', '/dashboard/charts'],
  ['relays', '/dashboard/relays'],
  ['queues', '/dashboard/queues'],
  ['jobs', '/dashboard/jobs'],
  ['schedule', '/dashboard/schedule'],
  ['processes', '/dashboard/processes'],
  ['workers', '/dashboard/workers'],
  ['actions', '/dashboard/actions'],
  ['upstreams', '/dashboard/upstreams'],
  ['events', '/dashboard/events'],
  ['repositories', '/dashboard/repositories'],
  ['followed', '/dashboard/followed'],
  ['parked', '/dashboard/parked'],
];

await browse(async (browser) => {
  await look(browser, EMPTY, '-empty');
  const one = await ask('relay', { subdomain: 'one', name: 'The only relay' });
  await look(browser, [...EMPTY, ['relay', `/dashboard/relays/${one}`]], '-one');
  await ask('relays', { prefix: 'garden', count: 12 });
  const broken = await ask('relay', { subdomain: 'broken', name: 'A relay that zooid refuses' });
  await ask('fail', { id: broken, status: 422 });
  const flaky = await ask('relay', { subdomain: 'flaky', name: 'A relay that fails once' });
  await ask('fail', { id: flaky, status: 502 });
  await ask('relays', { prefix: 'meadow', count: 30 });
  const upstream = await ask('upstream', {});
  await ask('grasp_rows');
  await ask('chart_rows');
  await ask('start_workers'); // when every fault is planned
  const first = await open(browser);
  await logIn(first);
  await first.getByText('gave up', { exact: false }).first().waitFor();
  await first.locator('.number.warn .figure', { hasText: '1' }).waitFor();

  await first.goto('/dashboard/jobs?state=killed');
  const job = await first.locator('td[data-label="Job"] a').first().getAttribute('href');

  const pages = [
    ['fleet', '/dashboard'],
    ['charts', '/dashboard/charts'],
    ['charts-week', '/dashboard/charts?range=7d'],
    ['relays', '/dashboard/relays'],
    ['relay', `/dashboard/relays/${flaky}`],
    ['queues', '/dashboard/queues'],
    ['jobs', '/dashboard/jobs'],
    ['killed', '/dashboard/jobs?state=killed'],
    ['job', job],
    ['schedule', '/dashboard/schedule'],
    ['processes', '/dashboard/processes'],
    ['workers', '/dashboard/workers'],
    ['actions', '/dashboard/actions'],
    ['search', '/dashboard/search?q=a'],
    ['search-many', '/dashboard/search?q=meadow'],
    ['search-none', '/dashboard/search?q=no-such-thing'],
    ['upstreams', '/dashboard/upstreams'],
    ['upstream', `/dashboard/upstreams/${upstream}`],
    ['events', '/dashboard/events'],
    ['repositories', '/dashboard/repositories'],
    ['repository', `/dashboard/repository?address=30617:${'a'.repeat(64)}:alpha`],
    ['followed', '/dashboard/followed'],
    ['followed-relay', '/dashboard/followed/00000000-0000-0000-0000-00000000000b'],
    ['parked', '/dashboard/parked?reason=orphan'],
  ];
  await look(browser, pages);

  // The pointer reads the values of a chart and names the marks near it.
  await first.goto('/dashboard/charts?range=24h');
  const plot = first.locator('tender-chart .u-over').first();
  const { x, y, width, height } = await plot.boundingBox();
  const near = first.locator('tender-chart').first().locator('p');
  for (let at = 0.7; at < 0.85 && !(await near.textContent()).includes('was paused'); at += 2 / width) {
    await first.mouse.move(x + at * width, y + height / 2);
  }
  const values = await first.locator('tender-chart .u-legend').first().locator('.u-value').allTextContents();
  check(values.length === 3 && values.slice(1).every((text) => /^[0-9,]+$/.test(text)), `the pointer reads values: ${values}`);
  check((await near.textContent()).includes('sync-relay was paused'), 'and names the mark');

  // Everything can be read without scripts.
  const plain = await open(browser, { javaScriptEnabled: false });
  await logIn(plain);
  await plain.goto(`/dashboard/relays/${broken}`);
  check((await plain.textContent('.timeline')).includes('422'), 'the timeline reads without scripts');
  await plain.goto('/dashboard');
  await plain.click('summary:has-text("Figures")');
  check(await plain.isVisible('details table'), 'so do the figures of the chart');
  check(wrong.length === 0, wrong.join('\n'));
});
