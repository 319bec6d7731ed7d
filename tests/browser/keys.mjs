// The keyboard, copied ids, colours and print.
import { ask, browse, check, checkReadable, logIn, open } from './browser.mjs';

const focused = (page) => page.evaluate(() => document.activeElement.closest('tr')?.textContent ?? document.activeElement.name);
const page_color = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);

await browse(async (browser) => {
  await ask('relays', { prefix: 'garden', count: 3 });
  const id = await ask('relay', { subdomain: 'alpha', name: 'Alpha' });
  const page = await open(browser, { colorScheme: 'light', permissions: ['clipboard-read', 'clipboard-write'] });
  await logIn(page);

  // Rows, filters, help.
  await page.goto('/dashboard/relays?order=host');
  await page.locator('tbody tr').nth(3).waitFor();
  await page.keyboard.press('j');
  check((await focused(page)).includes('alpha'), `the first row: ${await focused(page)}`);
  await page.keyboard.press('j');
  check((await focused(page)).includes('garden-0'), 'the second row');
  await page.keyboard.press('k');
  await page.keyboard.press('k');
  check((await focused(page)).includes('alpha'), 'the first row again, and no further');
  await page.keyboard.press('f');
  await page.keyboard.type('j/?');
  check(await page.inputValue('.filters input[name=q]') === 'j/?', 'what is typed is text');
  await page.goto('/dashboard/relays');
  await page.keyboard.press('?');
  await page.getByRole('dialog').getByText('next row').waitFor();
  await checkReadable(page, 'the help');
  await page.keyboard.press('Escape');
  await page.getByRole('dialog').waitFor({ state: 'detached' });
  await page.keyboard.press('j');
  await page.keyboard.press('Enter');
  await page.waitForURL('**/dashboard/relays/*');

  // An id is copied whole.
  await page.goto(`/dashboard/relays/${id}`);
  const copy = page.locator('button.copy').first();
  await copy.click();
  await page.locator('button.copy', { hasText: 'Copied' }).waitFor();
  check(await page.evaluate(() => navigator.clipboard.readText()) === id, 'the id is in the clipboard');

  // Colours: the system's, light, dark; on every page, and without scripts.
  const light = await page_color(page);
  const scheme = page.locator('form.scheme button');
  for (const name of ['light', 'dark']) {
    await scheme.click();
    await page.locator('form.scheme button', { hasText: name }).waitFor();
    check(page.url().endsWith(id), 'back on the same page');
  }
  const dark = await page_color(page);
  check(dark !== light, `dark is not light: ${dark}`);
  await page.goto('/dashboard/charts');
  check(await page_color(page) === dark, 'on another page too');
  await checkReadable(page, 'a page that is dark by choice');
  await page.locator('form.scheme button').click();
  await page.locator('form.scheme button', { hasText: 'system' }).waitFor();
  check(await page_color(page) === light, 'the system is light');
  const plain = await open(browser, { javaScriptEnabled: false, colorScheme: 'dark' });
  await logIn(plain);
  await plain.locator('form.scheme button').click();
  check(await plain.locator('html').getAttribute('data-scheme') === 'light', 'without scripts');
  check(!await plain.locator('button.copy').first().isVisible().catch(() => false), 'what needs scripts is not shown without');

  // On paper there is the content and nothing to press.
  await page.goto(`/dashboard/relays/${id}`);
  await page.emulateMedia({ media: 'print', colorScheme: 'dark' });
  check(!await page.locator('header').isVisible() && !await page.locator('main button').first().isVisible(), 'no button is printed');
  check(await page.getByText(id).first().isVisible(), 'the id is');
  check(await page.evaluate(() => getComputedStyle(document.documentElement).colorScheme) === 'light', 'on white');
});
