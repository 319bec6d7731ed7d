// Jobs are found, selected and steered; a selection stays with its jobs while the list changes.
import { ask, browse, check, logIn, open } from './browser.mjs';

const notice = async (page) => {
  await page.locator('.notice').waitFor();
  return page.textContent('.notice');
};

await browse(async (browser) => {
  await ask('relay', { subdomain: 'alpha', name: 'Alpha' });
  await ask('killed_jobs');
  const page = await open(browser);
  await logIn(page);

  // The filters are live, and the address follows.
  await page.goto('/dashboard/jobs');
  await page.fill('input[name=host]', 'alpha');
  await page.waitForFunction(() => document.querySelectorAll('tbody tr').length === 1);
  check((await page.textContent('tbody')).includes('alpha.zooid.test'), 'the job names its relay');
  check(page.url().includes('host=alpha'), 'the address follows');

  // A selection stays with its jobs while a job above them leaves the list.
  await page.goto('/dashboard/jobs?queue=prune&state=killed');
  await page.getByText('all that match (120)').waitFor();
  const boxes = page.locator('input[name=job]');
  check(await boxes.count() === 100, 'a page has 100 jobs');
  const [first, second, third] = await boxes.evaluateAll((all) => all.slice(0, 3).map((box) => box.value));
  await page.check(`#pick-${second}`);
  await page.check(`#pick-${third}`);
  await ask('end_job', { id: first });
  await page.locator(`#job-${first}`).waitFor({ state: 'detached' });
  const checked = await boxes.evaluateAll((all) => all.filter((box) => box.checked).map((box) => box.value));
  check(checked.join() === [second, third].join(), `the selection stays: ${checked}`);
  await page.getByRole('button', { name: 'Delete …' }).click();
  await page.getByText('Delete 2 jobs', { exact: false }).waitFor();
  await page.getByRole('button', { name: 'Yes' }).click();
  check((await notice(page)).includes('2 jobs deleted.'), 'both are deleted');
  check(page.url().includes('state=killed'), 'back on the list');

  // All of the page at once.
  await page.check('#pick-all');
  check(await page.locator('input[name=job]:checked').count() === 100, 'all of the page');
  await page.getByRole('button', { name: 'Retry …' }).click();
  await page.getByText('Retry 100 jobs', { exact: false }).waitFor();
  await page.getByRole('link', { name: 'No' }).click();
  await page.getByText('all that match (117)').waitFor();

  // Without scripts.
  const plain = await open(browser, { javaScriptEnabled: false });
  await logIn(plain);
  await plain.goto('/dashboard/jobs?queue=prune&state=killed');
  check(!(await plain.isVisible('#pick-all')), 'what needs a script is not there');
  await plain.check('#scope-all');
  await plain.getByRole('button', { name: 'Retry …' }).click();
  check((await plain.textContent('h1')).includes('Retry 117 jobs'), 'the question has the count');
  await plain.getByRole('button', { name: 'Yes' }).click();
  check((await notice(plain)).includes('117 jobs requeued.'), 'they are requeued');
});
