'use strict';
// Pipelines: what is handed on, what becomes of steps that fail, and that nothing makes a login of a refusal.

const assert = require('node:assert');
const { test, describe } = require('node:test');
const { withHost, until, sha } = require('./host.js');

const rule = (body) => `function (user, context, callback) { ${body} }`;
const OK = 'callback(null, user, context);';
const mark = (n) => rule(`(user.seen = user.seen || []).push(${n}); ${OK}`);
const input = { user: { email: 'a@b.c' }, context: { protocol: 'oidc' } };
const skip = (source, more) => ({ source, policy: 'skip', ...more });

// stepsOf shows the outcomes that the host was told of, in short.
const told = (x) => x.steps.map((s) => [s.index, s.outcome, s.why ?? s.error?.name ?? '']);

async function ends(host, steps, outcome, kind = 'rule', head = {}) {
  const x = await host.pipe(kind, steps, kind === 'rule' ? input : { user: { user_id: 'u' } }, head).answered;
  assert.equal(x.outcome, outcome, JSON.stringify([x.result, x.steps]));
  return x;
}

describe('rules', () => {
  test(
    'hand user and context on, in order, and one answer comes',
    withHost(async (host) => {
      const x = await ends(
        host,
        [
          mark(1),
          rule('user.seen.push(2); context.idToken = { a: 1 }; callback(null);'),
          rule('setTimeout(() => callback(null, { ...user, three: true }), 5);'),
          'async (user, context, callback) => { await null; context.redirect = { url: "https://x" }; callback(null, user, context); }',
          '(user, context, cb) => cb(null, user, { ...context, multifactor: { provider: "any" } })',
        ],
        'ok',
      );
      assert.deepEqual(x.value, {
        user: { email: 'a@b.c', seen: [1, 2], three: true },
        context: { protocol: 'oidc', idToken: { a: 1 }, redirect: { url: 'https://x' }, multifactor: { provider: 'any' } },
      });
      assert.deepEqual(x.steps, [], 'nobody needs to hear of steps');
      assert.equal(x.result.us.length, 5);
      assert.ok(x.result.us[2] >= 3000, `${x.result.us}`);
      assert.ok(x.isSettled);
    }),
  );

  test(
    'no rules: what came goes back',
    withHost(async (host) => {
      const x = await host.pipe('rule', [], { user: { a: 1 }, context: { b: [2] }, more: 1 }).answered;
      assert.deepEqual(x.value, { user: { a: 1 }, context: { b: [2] } });
      assert.deepEqual((await host.pipe('rule', [], {}).answered).value, { user: {}, context: {} });
    }),
  );

  test(
    'an input that is none',
    withHost(async (host) => {
      for (const bad of [1, null, [], 'x', { user: 1 }, { user: [] }, { user: {}, context: 'c' }]) {
        const x = await host.pipe('rule', [mark(1)], bad).answered;
        assert.equal(x.outcome, 'invalid', JSON.stringify(bad));
        assert.ok(x.isSettled);
      }
      assert.equal((await host.pipe('rule', [mark(1)], 0, { raw: '{"user":' }).answered).outcome, 'invalid');
      assert.equal((await host.pipe('action', ['exports.onX = () => {}'], [1]).answered).outcome, 'invalid');
    }),
  );

  test(
    'global is shared, secrets and what is assigned to configuration are not',
    withHost(async (host) => {
      const show = (n) => rule(`user.s${n} = { ...configuration }; global.n = (global.n || 0) + 1; user.n = global.n; ${OK}`);
      const steps = [
        { source: show(1), secrets: { KEY: 'one', ALL: 'x' }, rev: '1' },
        { source: rule(`configuration.KEY = 'mine'; configuration = { KEY: 'stolen' }; auth0 = {}; ${OK}`), secrets: { KEY: 'two' } },
        { source: show(3), secrets: { KEY: 'three', ALL: 'x' }, rev: '3' },
        show(4),
      ];
      const x = await ends(host, steps, 'ok', 'rule', { config: { plain: 'p' } });
      assert.deepEqual(x.value.user, {
        email: 'a@b.c',
        s1: { plain: 'p', KEY: 'one', ALL: 'x' },
        s3: { plain: 'p', KEY: 'three', ALL: 'x' },
        s4: { plain: 'p' },
        n: 3,
      });
    }),
  );

  test(
    'instances go with the revision of their own secrets',
    withHost(async (host) => {
      const source = `const key = configuration.KEY; global.tops = (global.tops || 0) + 1;
        module.exports = (user, context, callback) => { user.key = key; user.tops = global.tops; callback(null, user, context); }`;
      let kept = false;
      const call = async (KEY, rev) => {
        const x = await ends(host, [mark(1), { source, secrets: { KEY }, rev, kept }], 'ok');
        kept = true;
        return x.value.user;
      };
      assert.deepEqual(await call('a', '1'), { email: 'a@b.c', seen: [1], key: 'a', tops: 1 });
      assert.equal((await call('a', '1')).tops, 1, 'the same instance');
      assert.deepEqual(await call('b', '2'), { email: 'a@b.c', seen: [1], key: 'b', tops: 2 });
    }),
  );

  test(
    'lines carry their step, to the end of its time',
    withHost(async (host) => {
      const x = await ends(
        host,
        [
          rule(`console.log('one'); setTimeout(() => console.log('late'), 10); ${OK}`),
          skip(rule("console.group('g'); console.warn('two'); throw new Error('x')")),
          rule(`console.log('three'); setTimeout(() => callback(null, user, context), 40)`),
        ],
        'ok',
      );
      assert.deepEqual(
        x.logs.map((l) => [l.step, l.level, l.text]),
        [
          [0, 'info', 'one'],
          [1, 'info', 'g'],
          [1, 'warn', '  two'],
          [2, 'info', 'three'],
          [0, 'info', 'late'],
        ],
      );
    }),
  );

  test(
    'what is thrown belongs to the step whose async context it carries',
    withHost(async (host) => {
      const x = await ends(
        host,
        [
          rule(`setTimeout(() => { throw new Error('after my time') }, 5); ${OK}`),
          rule(`setTimeout(() => callback(null, user, context), 30)`),
        ],
        'ok',
      );
      assert.deepEqual([x.logs[0].step, x.logs[0].level], [0, 'error']);
      const y = await ends(host, [mark(1), rule(`setTimeout(() => { throw new TypeError('mine') }, 5)`)], 'error');
      assert.deepEqual([y.result.step, y.error.name, y.error.message, y.result.us.length], [1, 'TypeError', 'mine', 2]);
    }),
  );

  test(
    'failures, each at its step',
    withHost(async (host) => {
      const cases = {
        'callback("Access denied")': ['Error', 'Access denied'],
        'callback(new TypeError("t"))': ['TypeError', 't'],
        'throw new RangeError("r")': ['RangeError', 'r'],
        'context.self = context; callback(null, user, context)': ['TypeError', /circular/],
        'user.n = 10n; callback(null, user, context)': ['TypeError', /BigInt/],
        'callback(null, "text")': ['TypeError', /user that is no object/],
        'callback(null, user, [])': ['TypeError', /context that is no object/],
        'process.exit(3)': ['Error', /process\.exit/],
        'const o = Object.freeze({}); (() => { "use strict"; o.x = 1 })()': ['TypeError', /not extensible/],
      };
      for (const [body, [name, message]] of Object.entries(cases)) {
        for (const policy of ['fail', 'skip']) {
          const steps = [mark(1), { source: rule(body), policy }, mark(3)];
          if (policy === 'skip') {
            const x = await ends(host, steps, 'ok');
            assert.deepEqual(x.value.user.seen, [1, 3], body);
            assert.deepEqual(told(x), [[0, 'ok', ''], [1, 'skipped', name]], body);
          } else {
            const x = await ends(host, steps.slice(0, 2), 'error');
            assert.deepEqual([x.result.step, x.error.name], [1, name], body);
            assert.match(x.error.message, new RegExp(message));
          }
        }
      }
    }),
  );

  test(
    'the first callback counts, and what is called back late counts for nothing',
    withHost(async (host) => {
      const twice = rule("callback(null, { n: 1 }); callback(null, { n: 2 }); callback(new Error('x')); throw new Error('y')");
      assert.deepEqual((await ends(host, [twice], 'ok')).value.user, { n: 1 });
      const late = skip(rule("setTimeout(() => { user.late = true; callback(null, { n: 9 }) }, 60)"), { ms: 20 });
      const x = await ends(host, [late, rule(`setTimeout(() => callback(null, user), 120)`)], 'ok');
      assert.deepEqual(x.value.user, { email: 'a@b.c' });
      assert.deepEqual(told(x), [[0, 'skipped', 'timeout']]);
      await x.settled;
    }),
  );

  test(
    'megabytes of context, through states that need credit',
    withHost(async (host) => {
      const big = { user: {}, context: { pad: 'é'.repeat(1 << 20) } };
      const grow = rule(`context.n = (context.n || 0) + 1; ${OK}`);
      for (const steps of [
        [grow, grow, grow],
        [skip(grow), skip(rule('throw 1')), skip(grow), { source: grow, ms: 60000 }],
      ]) {
        const x = await host.pipe('rule', steps, big).answered;
        assert.equal(x.outcome, 'ok');
        assert.deepEqual([x.value.context.n, x.value.context.pad.length], [3, 1 << 20]);
        for (const s of x.steps.slice(0, -1)) {
          if (s.outcome === 'ok') assert.equal(JSON.parse(Buffer.from(s.state, 'latin1').toString()).context.pad.length, 1 << 20);
        }
      }
    }),
  );

  test(
    'a state that is larger than an answer may be',
    withHost(async (host) => {
      const huge = rule("context.pad = 'x'.repeat(2000); callback(null, user, context)");
      const x = await ends(host, [skip(huge), mark(2)], 'ok', 'rule', { maxOutput: 1000 });
      assert.deepEqual([told(x), x.value.user.seen], [[[0, 'skipped', 'output_too_large']], [2]]);
      const y = await ends(host, [mark(1), huge], 'output_too_large', 'rule', { maxOutput: 1000 });
      assert.equal(y.result.step, 1);
    }),
  );

  test(
    'code that is not loaded, or does not compile',
    withHost(async (host) => {
      const x = await host.pipe('rule', [mark(1), { source: 'a()', kept: true }, { source: 'b()', kept: true }], input).answered;
      assert.deepEqual(x.result, { outcome: 'not_loaded', hash: sha('a()'), missing: [sha('a()'), sha('b()')] });
      const one = await host.pipe('rule', [mark(1), { source: 'a()', kept: true }], input).answered;
      assert.deepEqual(one.result, { outcome: 'not_loaded', hash: sha('a()') });
      const bad = 'function (user, context, callback) {\n  oops(}\n}';
      const y = await ends(host, [mark(1), bad], 'load_error');
      assert.deepEqual([y.result.step, y.error.name, y.error.line], [1, 'SyntaxError', 2]);
      const z = await ends(host, [skip(bad), mark(2)], 'ok');
      assert.deepEqual([told(z), z.steps[0].error.line], [[[0, 'skipped', 'load_error']], 2]);
      assert.equal((await ends(host, ['module.exports = 3'], 'error')).error.code, 'ERR_SHAPE');
    }),
  );

  test(
    'modules that wait at their top level',
    withHost(async (host) => {
      const source = (body) => `await new Promise((ok) => setTimeout(ok, 5)); ${body}; export default (u, c, callback) => { u.esm = true; callback(null, u, c) }`;
      assert.equal((await ends(host, [source(''), mark(2)], 'ok')).value.user.esm, true);
      const x = await ends(host, [skip(source('throw new Error("top")')), mark(2)], 'ok');
      assert.deepEqual(x.value.user, { email: 'a@b.c', seen: [2] });
    }),
  );

  test(
    'one that runs for long is named',
    withHost(async (host) => {
      const wait = (ms) => rule(`setTimeout(() => callback(null, user, context), ${ms})`);
      const x = host.pipe('rule', [skip(mark(0)), mark(1), mark(2), wait(1500), mark(4), wait(1500), mark(6)], input);
      await x.answered;
      assert.deepEqual(
        x.steps.map((s) => [s.index, s.outcome, s.times?.length]),
        [[0, 'ok', undefined], [3, 'running', 2], [5, 'running', 2]],
      );
      assert.deepEqual([x.outcome, x.result.us.length], ['ok', 2]);
    }),
  );

  test(
    'is cancelled where it stands',
    withHost(async (host) => {
      const x = host.pipe('rule', [mark(1), rule("console.log('here'); setTimeout(() => callback(null), 50)"), rule("console.log('never')")], input);
      await until(host, () => x.logs.length > 0);
      host.cancel(x, 'deadline');
      assert.equal((await x.answered).outcome, 'cancelled');
      await x.settled;
      assert.deepEqual(x.logs.map((l) => l.text), ['here']);
    }),
  );
});

describe('policies', () => {
  test(
    'what a failed step has changed is gone, also what it changes later',
    withHost(async (host) => {
      const bad = rule("user.bad = 1; context.bad = 1; user.deep.bad = 1; setInterval(() => { user.later = 1; user.deep.later = 1 }, 1).unref(); setTimeout(() => callback(new Error('x')), 10)");
      const x = await host.pipe(
        'rule',
        [mark(1), skip(bad), rule('setTimeout(() => callback(null, user, context), 20)'), mark(3)],
        { user: { deep: {} }, context: {} },
      ).answered;
      assert.deepEqual(x.value, { user: { deep: {}, seen: [1, 3] }, context: {} });
      assert.deepEqual(told(x), [[0, 'ok', ''], [1, 'skipped', 'Error']]);
      assert.deepEqual(x.steps.map((s) => s.state), ['{"user":{"deep":{},"seen":[1]},"context":{}}', '']);
      assert.equal(x.result.us.length, 2);
    }),
  );

  test(
    'a step has its own time; code that holds the loop is not forgiven',
    withHost(async (host) => {
      const never = rule('');
      const slow = rule(`const end = Date.now() + 60; while (Date.now() < end); ${OK}`);
      for (const source of [never, slow, 'async () => { await new Promise(() => {}) }']) {
        const x = await ends(host, [mark(1), { source, ms: 20 }, mark(3)], 'timeout');
        assert.deepEqual([x.result.step, x.error.name, x.error.code], [1, 'TimeoutError', 'ERR_STEP_TIMEOUT']);
        const y = await ends(host, [mark(1), skip(source, { ms: 20 }), mark(3)], 'ok');
        assert.deepEqual([told(y)[1], y.value.user.seen], [[1, 'skipped', 'timeout'], [1, 3]]);
      }
    }),
  );

  test(
    'last_good runs the earlier version, on the same state',
    withHost(async (host) => {
      const bad = rule("user.bad = true; throw new TypeError('new one')");
      const good = rule(`user.good = true; ${OK}`);
      const step = { source: bad, fallback: good, policy: 'last_good' };
      const x = await ends(host, [mark(1), step, mark(3)], 'ok');
      assert.deepEqual(x.value.user, { email: 'a@b.c', seen: [1, 3], good: true });
      assert.deepEqual(told(x), [[0, 'ok', ''], [1, 'stand_in', ''], [1, 'last_good', 'TypeError']]);
      assert.equal((await ends(host, [step], 'ok')).value.user.good, true, 'as the last step, too');
      const both = await ends(host, [{ ...step, fallback: rule("throw new Error('old one')") }], 'error');
      assert.equal(both.error.message, 'new one', 'what is to be mended');
      assert.equal((await ends(host, [{ source: bad, policy: 'last_good' }], 'error')).error.message, 'new one');
      const denies = await ends(host, [{ ...step, fallback: rule("callback(new UnauthorizedError('old'))") }], 'refused');
      assert.equal(denies.error.message, 'old');
    }),
  );

  test(
    'a version that is not to be run rests',
    withHost(async (host) => {
      const ran = rule(`console.log('ran'); ${OK}`);
      const x = await ends(host, [skip(ran, { rest: true }), mark(2)], 'ok');
      assert.deepEqual([told(x), x.logs, x.value.user.seen], [[[0, 'skipped', '']], [], [2]]);
      const step = { source: ran, fallback: mark(1), policy: 'last_good', rest: true };
      const y = await ends(host, [step, mark(2)], 'ok');
      assert.deepEqual([told(y), y.logs, y.value.user.seen], [[[0, 'last_good', '']], [], [1, 2]]);
      const z = await ends(host, [{ ...step, fallback: rule("throw new Error('old')") }], 'error');
      assert.equal(z.error.message, 'old');
    }),
  );

  test(
    'goes on where another container stopped',
    withHost(async (host) => {
      const state = { user: { a: 1 }, context: { b: 2 } };
      const x = await host.pipe('rule', [mark(0), skip(mark(1)), mark(2)], state, { from: 2, resumed: true }).answered;
      assert.deepEqual(x.value, { user: { a: 1, seen: [2] }, context: { b: 2 } });
      const end = await host.pipe('rule', [mark(0), skip(mark(1))], state, { from: 2, resumed: true }).answered;
      assert.deepEqual(end.value, state);
    }),
  );

  test(
    'the host hears of a step before the next begins',
    withHost(async (host) => {
      const x = host.pipe('rule', [mark(1), skip(mark(2)), skip(rule('while (true);'))], input);
      await new Promise((ok) => {
        host.on('step', () => x.steps.length === 2 && ok());
      });
      assert.deepEqual(told(x), [[0, 'ok', ''], [1, 'ok', '']]);
      assert.deepEqual(JSON.parse(x.steps[1].state).user.seen, [1, 2]);
    }),
  );
});

describe('a refusal', () => {
  const refusals = {
    'is called back': 'callback(new UnauthorizedError("no"))',
    'is called back, and then more': 'callback(new UnauthorizedError("no")); callback(null, user, context); throw new Error("x")',
    'is thrown': 'throw new UnauthorizedError("no")',
    'is thrown later': 'setTimeout(() => { throw new UnauthorizedError("no") }, 1)',
    'is a rejection': 'return Promise.reject(new UnauthorizedError("no"))',
    'is a rejection that nobody returned': 'Promise.reject(new UnauthorizedError("no"))',
    'is of a class derived from it': 'class Mine extends UnauthorizedError { constructor() { super("no"); this.name = "Mine" } }; callback(new Mine())',
    'is of an old-style class': 'function Mine() { this.message = "no" }; Mine.prototype = Object.create(UnauthorizedError.prototype, { name: { value: "Old" } }); callback(new Mine())',
    'has the name only': 'const e = new Error("no"); e.name = "UnauthorizedError"; callback(e)',
    'is of a class of that name': 'const e = new (class UnauthorizedError extends Error {})("no"); callback(e)',
    'had its name changed': 'const e = new UnauthorizedError("no"); e.name = "Error"; Object.setPrototypeOf(e, Error.prototype); callback(e)',
    'comes after a failure': 'setTimeout(() => callback(new UnauthorizedError("no")), 5); throw new Error("first")',
    'comes after a failure, thrown': 'setTimeout(() => { throw new UnauthorizedError("no") }, 5); throw new Error("first")',
    'comes after the time': 'setTimeout(() => callback(new UnauthorizedError("no")), 300)',
  };
  const wait = rule('setTimeout(() => callback(null, user, context), 600)');

  for (const [how, body] of Object.entries(refusals)) {
    test(
      how,
      withHost(async (host) => {
        const source = rule(body);
        const time = how === 'comes after the time' ? { ms: 200 } : {};
        const policies = [skip(source, time), { source, policy: 'last_good', fallback: mark(1), ...time }];
        if (!how.startsWith('comes after')) policies.push(source, { source, policy: 'last_good' });
        for (const step of policies) {
          const x = await ends(host, [mark(0), step, wait, rule("console.log('never')")], 'refused');
          assert.deepEqual([x.result.step, x.error.message, x.error.denied, x.data.join('')], [1, 'no', true, '']);
          assert.deepEqual(x.logs.filter((l) => l.text === 'never'), []);
          await x.settled;
        }
      }),
    );
  }

  test(
    'is heard though the code then never ends',
    withHost(async (host) => {
      const x = await host.pipe('rule', [mark(0), skip(rule('callback(new UnauthorizedError("no")); while (true);'), { ms: 50 })], input).answered;
      assert.deepEqual([x.outcome, x.error.message], ['refused', 'no']);
    }),
  );

  test(
    'is not weakened by what an earlier rule does',
    withHost(async (host) => {
      const mischief = [
        'UnauthorizedError.prototype.name = "Error"; Object.defineProperty(UnauthorizedError.prototype, "name", { get: () => "Error" })',
        'try { Object.defineProperty(UnauthorizedError, Symbol.hasInstance, { value: () => false }) } catch {}',
        'try { Object.setPrototypeOf(UnauthorizedError, class { constructor() { return {} } }) } catch {}',
        'Object.setPrototypeOf(UnauthorizedError.prototype, null)',
        'global.UnauthorizedError = class extends Error {}; UnauthorizedError = Error',
        'try { delete globalThis.UnauthorizedError; Object.defineProperty(globalThis, "UnauthorizedError", { value: Error }) } catch {}',
        'WeakSet.prototype.has = () => false; WeakSet.prototype.add = function () { return this }',
        'Object.prototype.policy = "skip"; Object.prototype.rest = true; Object.prototype.fallback = "x"; Object.prototype.denied = false; Object.prototype.steps = []; Object.prototype.head = "x"',
        'Object.getPrototypeOf = () => null; Reflect.getPrototypeOf = () => null; Array.prototype.push = () => 0; JSON.stringify = () => "{}"; JSON.parse = () => ({ user: {}, context: {} })',
        'Error.prototype.name = "x"; Error.captureStackTrace = () => {}; Promise.prototype.then = () => {}; Function.prototype.call = () => {}',
        'global.Error = class { }; global.Promise = class {}; clearTimeout = setTimeout = setImmediate = () => 0',
      ];
      for (const body of mischief) {
        const denies = [rule('callback(new UnauthorizedError("no"))'), 'async () => { throw new UnauthorizedError("no") }'];
        for (const source of denies) {
          const x = await ends(host, [rule(`${body}; ${OK}`), skip(source), mark(2)], 'refused');
          assert.deepEqual([x.result.step, x.error.denied], [1, true], body);
        }
      }
    }),
  );
});

describe('actions', () => {
  const action = (body) => `exports.onExecutePostLogin = async (event, api) => { ${body} };`;

  test(
    'add to one set of effects, with secrets of their own and the event as it came',
    withHost(async (host) => {
      const x = await ends(
        host,
        [
          { source: action("api.idToken.setCustomClaim('a', event.secrets.K); event.user.user_id = 'changed'; event.mine = 1"), secrets: { K: 'one' } },
          { source: action("await null; api.idToken.setCustomClaim('b', [event.secrets.K, event.user.user_id, event.mine]); api.user.setUserMetadata('m', 1)"), secrets: { K: 'two' } },
        ],
        'ok',
        'action',
      );
      assert.deepEqual(x.value.idToken.claims, { a: 'one', b: ['two', 'u', null] });
      assert.deepEqual(x.value.user, { user_metadata: { m: 1 } });
      assert.equal(x.value.commands.length, 3);
      assert.deepEqual((await host.pipe('action', [], {}).answered).value, { commands: [] });
    }),
  );

  test(
    'effects of one that failed are gone',
    withHost(async (host) => {
      const bad = skip(action("api.idToken.setCustomClaim('bad', 1); setTimeout(() => api.idToken.setCustomClaim('late', 1), 5); await null; throw new Error('x')"));
      const x = await ends(
        host,
        [action("api.idToken.setCustomClaim('a', 1)"), bad, action("await new Promise((ok) => setTimeout(ok, 20)); api.idToken.setCustomClaim('c', 1)")],
        'ok',
        'action',
      );
      assert.deepEqual(x.value.idToken.claims, { a: 1, c: 1 });
      assert.deepEqual(x.value.commands.map((c) => c[1]), ['a', 'c']);
      const on = await host.pipe('action', ['', action("api.idToken.setCustomClaim('c', event.user.user_id)")],
        { input: { user: { user_id: 'u' } }, effects: { commands: [['x']], idToken: { claims: { a: 1 } } } }, { from: 1, resumed: true }).answered;
      assert.deepEqual(on.value, { commands: [['x'], ['idToken.setCustomClaim', 'c', 'u']], idToken: { claims: { a: 1, c: 'u' } } });
    }),
  );

  test(
    'deny stops later ones once this one is over, however it is over',
    withHost(async (host) => {
      const ways = {
        '': 1,
        'await null;': 1,
        'throw new Error("x");': 1,
        'await new Promise(() => {});': 0,
        'setTimeout(() => { throw new Error("y") }, 1); await new Promise(() => {});': 0,
      };
      for (const way of Object.keys(ways)) {
        const source = action(`api.access.deny('bad day'); ${way}`);
        for (const step of [skip(source, { ms: 40 }), { source, policy: 'last_good', fallback: action(''), ms: 40 }]) {
          const x = await ends(host, [step, action("console.log('never')")], 'refused', 'action');
          assert.deepEqual([x.error.name, x.error.message, x.error.denied], ['AccessDenied', 'bad day', true], way);
          assert.deepEqual(told(x), [[0, 'refused', 'AccessDenied']], 'said at once');
          assert.deepEqual(x.logs, []);
        }
        if (ways[way]) assert.equal((await ends(host, [source, action('')], 'refused', 'action')).error.message, 'bad day');
      }
      const x = host.pipe('action', [skip(action("api.access.deny('no'); while (true);"), { ms: 50 })], {});
      await new Promise((ok) => host.on('step', ok));
      assert.equal(x.steps[0].outcome, 'refused');
    }),
  );
});
