// What the scripts share: a browser, the other side, and checks.
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { chromium } from 'playwright-core';

export const BASE = process.env.BASE_URL;
export const PASSWORD = process.env.PASSWORD;
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

// One question at a time: the other side answers in order.
let last = Promise.resolve();
export function ask(what, more = {}) {
  const answer = last.then(async () => {
    process.stdout.write(`${JSON.stringify({ do: what, ...more })}\n`);
    return JSON.parse((await answers.next()).value);
  });
  last = answer;
  return answer;
}

export function check(is, what) {
  if (!is) throw new Error(`not so: ${what}`);
}

export async function browse(work) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    timeout: 120_000, // a machine may be busy
    args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-sync',
      '--disable-component-update', '--no-first-run'],
  });
  try {
    await work(browser);
  } finally {
    await browser.close();
  }
  process.exit(0);
}

// A page whose signer is one of the keys of the other side, and whose questions are answered yes.
export async function open(browser, { as, ...options } = {}) {
  const context = await browser.newContext({ baseURL: BASE, ...options });
  if (as) {
    await context.exposeFunction('signOutside', (event) => ask('sign', { as, event }));
    await context.addInitScript(() => {
      window.nostr = { signEvent: (event) => window.signOutside(event) };
    });
  }
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  page.asked = [];
  page.failures = [];
  page.on('dialog', (dialog) => { page.asked.push(dialog.message()); dialog.accept(); });
  page.on('pageerror', (error) => page.failures.push(String(error)));
  page.on('console', (message) => {
    if (message.type() === 'error') page.failures.push(message.text());
  });
  return page;
}

// By the password the first time, by the same session then: logins are throttled.
let session;
export async function logIn(page) {
  if (session) {
    await page.context().addCookies(session);
    return page.goto('/dashboard');
  }
  await page.goto('/dashboard/login');
  await page.fill('#password', PASSWORD);
  await page.getByRole('button', { name: 'Log in', exact: true }).click();
  await page.waitForURL('**/dashboard');
  session = await page.context().cookies();
}

const axe = readFileSync(new URL('node_modules/axe-core/axe.min.js', import.meta.url), 'utf8');

// No finding at all.
export async function checkReadable(page, where) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document, {
    runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice'],
  }));
  const words = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html).join(' | ')}`);
  check(violations.length === 0, `${where} has no finding of axe: ${words.join('\n')}`);
}

/** Every table is within its frame, and no word in it or in a heading is split; labels of filters are in line. */
export async function checkTables(page, where) {
  const wrong = await page.evaluate(() => {
    const found = [];
    for (const table of document.querySelectorAll('main table')) {
      if (!table.checkVisibility()) continue;
      const frame = table.closest('.scroll, section') ?? document.querySelector('main');
      const label = frame.getAttribute('aria-label') ?? frame.getAttribute('aria-labelledby') ?? 'a table';
      if (frame.scrollWidth > frame.clientWidth + 1) found.push(`${label} is cut: ${frame.scrollWidth} of ${frame.clientWidth}`);
      if (table.getBoundingClientRect().right > window.innerWidth + 1) found.push(`${label} leaves the window`);
    }
    // A word is split if its letters stand in more than one line. Ids, addresses and words of others may be.
    const texts = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      const text = texts.currentNode;
      const own = text.parentElement;
      if (!own.checkVisibility() || own.closest('code, pre, .error, .any, .skip, tender-chart, svg, option')) continue;
      for (const word of text.data.matchAll(/[\p{L}\p{N}]{2,24}/gu)) {
        const range = document.createRange();
        range.setStart(text, word.index);
        range.setEnd(text, word.index + word[0].length);
        const tops = [...range.getClientRects()].map((rect) => rect.top);
        if (Math.max(...tops) - Math.min(...tops) > 4) found.push(`“${word[0]}” is split in ${own.outerHTML.slice(0, 100)}`);
      }
    }
    return found;
  });
  check(wrong.length === 0, `${where}: ${wrong.slice(0, 8).join('; ')}`);
  const tops = await page.$$eval('.filters label', (labels) => labels.map((label) => Math.round(label.getBoundingClientRect().top)));
  if (page.viewportSize().width >= 1280) check(new Set(tops).size <= 1, `the labels of the filters of ${where} are in line: ${tops}`);
}

/** The heads of tables that are shown as cards are only for readers of the page's text. */
export async function checkCards(page, where) {
  const shown = await page.$$eval('table.cards thead', (heads) => heads
    .filter((head) => head.getBoundingClientRect().width > 2 && getComputedStyle(head.parentElement).display === 'block').length);
  check(shown === 0, `${where} shows the head of a table beside its cards`);
}

// Nothing is wider than the window, and no two texts lie over each other.
export async function checkFits(page, where) {
  const [wide, screen] = await page.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
  check(wide <= screen, `${where} scrolls sideways: ${wide} of ${screen}`);
  const over = await page.evaluate(() => {
    const shown = (element) => element.checkVisibility() && !element.closest('.scroll, .skip, tender-chart');
    const leaves = [...document.querySelectorAll('a, button, time, .badge, dt, td > code, label, h1, h2')].filter(shown);
    // A text of several lines has a box for each of them.
    const boxes = leaves.flatMap((element) => [...element.getClientRects()].map((box) => [element, box]));
    for (const [one, a] of boxes) {
      for (const [two, b] of boxes) {
        if (one === two || one.contains(two) || two.contains(one)) continue;
        const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (width > 2 && height > 2) return `${one.outerHTML.slice(0, 120)} over ${two.outerHTML.slice(0, 120)}`;
      }
    }
    return '';
  });
  check(over === '', `${where}: ${over}`);
}
