// Health check: can a customer log in to the shop and see the account page?
//
// Input: {url, email, password, expect}. Answers {healthy: true, steps: [...]}; throws (= unhealthy) with the first thing
// that is wrong.
const cheerio = require('cheerio');

async function check(input, ctx) {
  const steps = [];
  const cookies = new Map();

  async function visit(name, path, options = {}) {
    const started = Date.now();
    const res = await fetch(new URL(path, input.url), {
      ...options,
      redirect: 'manual',
      signal: ctx.signal,
      headers: { ...options.headers, cookie: [...cookies].map(([k, v]) => `${k}=${v}`).join('; ') },
    });
    for (const line of res.headers.getSetCookie()) {
      const [k, v] = line.split(';')[0].split('=');
      cookies.set(k, v);
    }
    const body = await res.text();
    steps.push({ name, status: res.status, ms: Date.now() - started });
    console.log(`${name}: ${res.status}`);
    return { res, $: cheerio.load(body) };
  }

  const form = await visit('login form', '/login');
  if (form.res.status !== 200) throw new Error(`login form: expected 200, got ${form.res.status}`);
  const token = form.$('form[action="/login"] input[name=csrf]').attr('value');
  if (!token) throw new Error('login form: no CSRF token in the form');

  const login = await visit('login', '/login', {
    method: 'POST',
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: new URLSearchParams({ csrf: token, email: input.email, password: input.password }),
  });
  if (login.res.status !== 303) {
    throw new Error(`login: expected 303, got ${login.res.status}: ${login.$('.error').text() || 'no reason shown'}`);
  }

  const account = await visit('account page', login.res.headers.get('location'));
  if (account.res.status !== 200) {
    const where = account.res.headers.get('location');
    throw new Error(`account page: expected 200, got ${account.res.status}${where ? ` to ${where}: the session is not kept` : ''}`);
  }
  const greeting = account.$('h1').text();
  if (!greeting.includes(input.expect)) throw new Error(`account page: expected "${input.expect}" in "${greeting}"`);
  return { healthy: true, greeting, steps };
}

module.exports = check;
