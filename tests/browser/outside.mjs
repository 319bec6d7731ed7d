// Without a session there is a login page and nothing else; what tenants write is text, never markup.
import { ask, browse, check, logIn, open } from './browser.mjs';

await browse(async (browser) => {
  const page = await open(browser);
  const id = await ask('relay', { subdomain: 'alpha', name: '<img src=x onerror="window.owned=1"><script>window.owned=1</script>' });
  const paths = ['', '/relays', `/relays/${id}`, '/queues', '/jobs', '/jobs/x', '/workers', '/schedule', '/processes', '/actions',
    '/live/fleet', '/live/relays', `/live/relays/${id}`, '/live/queues', '/live/jobs', '/live/jobs/x',
    '/live/workers', '/assets/app.js', '/nothing'];
  for (const path of paths) {
    const response = await page.goto(`/dashboard${path}`);
    const is = new URL(page.url()).pathname === '/dashboard/login' || response.status() === 401 || response.status() === 404;
    check(is, `${path} is not shown`);
    check(!(await page.content()).includes('alpha.zooid.test'), `${path} tells nothing`);
    const status = await page.evaluate(async (url) => (await fetch(url)).status, `/dashboard${path}`);
    check([401, 404].includes(status), `${path} for a script: ${status}`);
  }

  await logIn(page);
  for (const path of ['', '/relays', `/relays/${id}`, '/jobs', '/queues', '/workers', '/actions']) {
    await page.goto(`/dashboard${path}`);
    check(!await page.evaluate(() => window.owned), `nothing a tenant wrote runs on ${path}`);
  }
  await page.goto(`/dashboard/relays/${id}`);
  check((await page.textContent('main')).includes('<img src=x'), 'it is shown as it was written');
});
