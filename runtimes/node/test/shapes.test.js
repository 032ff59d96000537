'use strict';
// What a module may be, and how each shape is called: the contract of functions, rules, webtasks and actions.

const assert = require('node:assert');
const { test, describe } = require('node:test');
const { Host, withHost, sha } = require('./host.js');
const { startsAsFunction, parameters } = require('../scan.js');

// rows runs [source, input, wanted value, options] against one agent.
function rows(list) {
  return withHost(async (host) => {
    for (const [source, input, want, options] of list) {
      const x = await host.run(source, input, options);
      assert.deepEqual(
        { outcome: x.outcome, error: x.error?.message, value: x.value },
        { outcome: 'ok', error: undefined, value: want },
        source,
      );
      await x.settled;
    }
  });
}

describe('text', () => {
  test('how a function expression begins', () => {
    for (const text of [
      'function () {}',
      'function f(a) {}',
      '  // c\n/* d */ function (a) {}',
      'async function () {}',
      '\uFEFFfunction () {}',
      'a => a',
      '(a, b) => a',
      '(a = ")", {b} = {}) => a',
      'async a => a',
      'async (a) => a',
      'async => async',
      '()=>{}',
      '(a /* ) */, b) => {}',
      '(a, // )\n b) => {}',
      'function*(){}',
      '$ => $',
      'ünïcode => 1',
    ]) {
      assert.notEqual(startsAsFunction(text), '', text);
    }
    for (const text of [
      'module.exports = () => {}',
      '(function () {})()',
      'return function () {}',
      'exports.a = (b) => b',
      'async(1)',
      'functional()',
      '',
      '// function () {}',
      '(a, b)',
      '"function"',
      'x == y => z',
      'class A {}',
    ]) {
      assert.equal(startsAsFunction(text), '', text);
    }
  });

  test('a look at how a text begins takes linear time', () => {
    assert.equal(startsAsFunction('async /* a */ /* b */ function () {}'), 'function');
    for (const text of ['async' + '/**/'.repeat(100000) + '(1)', '('.repeat(300000), '/*'.repeat(300000)]) {
      try {
        assert.equal(startsAsFunction(text), '');
      } catch (e) {
        assert.equal(e.name, 'RangeError'); // the compiler says the same of such a text
      }
    }
  });

  test('parameters are read from the function', () => {
    const cases = [
      [function (a, b) {}, ['a', 'b']],
      [(a, b = [1, 2], ...cb) => {}, ['a', 'b']],
      [(a) => a, ['a']],
      [async (x) => x, ['x']],
      [async function named(user, context, callback) {}, ['user', 'context', 'callback']],
      [({ a, b }, [c], cb) => {}, ['', '', 'cb']],
      [() => {}, []],
      [function (a /* , b */, /* c, */ cb) {}, ['a', 'cb']],
      [(a = '),(', cb) => a, ['a', 'cb']],
      [function* gen(a, next) {}, ['a', 'next']],
      [{ method(a, done) {} }.method, ['a', 'done']],
      [{ async m(a, done) {} }.m, ['a', 'done']],
      [function (a, b) {}.bind(null), null],
      [Math.max, null],
    ];
    for (const [fn, want] of cases) assert.deepEqual(parameters(fn), want, fn.toString());
    assert.deepEqual(parameters(eval('x => x')), ['x']);
  });

  test(
    'all readings of a text',
    rows([
      ['function (input) { return input + 1 }', 1, 2],
      ['function named(input) { return input + 1 }', 1, 2],
      ['(input) => input + 1', 1, 2],
      ['input => input + 1', 1, 2],
      ['async (input) => input + 1', 1, 2],
      [
        '\r\n// comment\r\n\r\n/* more */ async function (input) {\r\n return input + 1 }\r\n// ends in a comment',
        1,
        2,
      ],
      ['function (input) { return input + 1 } // no line end', 1, 2],
      ['module.exports = (input) => input + 1', 1, 2],
      ['module.exports = function (input) { return input + 1 };', 1, 2],
      ['exports.default = (input) => input + 1', 1, 2],
      ['return (input) => input + 1', 1, 2],
      ['"use latest"\nreturn function (input) { return input + 1 }', 1, 2],
      ['"use strict";\nconst n = 1;\nmodule.exports = (input) => input + n;', 1, 2],
      [
        'const configuration = { n: 1 }, auth0 = 1, _ = 2, request = 3;\nmodule.exports = (input) => input + configuration.n',
        1,
        2,
      ],
      ['function add(a) { return a + 1 }\nmodule.exports = add', 1, 2],
      ['function add(f) { module.exports = f }\n(function () { add((input) => input + 1) })()', 1, 2],
      ['export default (input) => input + 1', 1, 2],
      ['export default function (input) { return input + 1 }', 1, 2],
      [
        'import os from "node:os";\nimport { EOL } from "os";\nexport default (input) => [input, EOL === os.EOL]',
        1,
        [1, true],
      ],
      ['const { EOL } = await import("node:os");\nexport default (input) => [input, EOL]', 1, [1, '\n']],
      ['module.exports = async (input) => (await import("node:path")).join("a", input)', 'b', 'a/b'],
      ['class A { static x = 1 }\nmodule.exports = (input) => input?.a ?? A.x', {}, 1],
    ]),
  );
});

describe('functions', () => {
  test(
    'values in and out',
    rows([
      ['(input) => input', { a: [1, 'ü', null, true] }, { a: [1, 'ü', null, true] }],
      ['() => undefined', 1, null],
      ['() => {}', undefined, null],
      ['(input) => input', undefined, null],
      ['(input) => () => 1', 1, null],
      ['() => Symbol("s")', 1, null],
      ['() => NaN', 1, null],
      ['() => new Date(0)', 1, '1970-01-01T00:00:00.000Z'],
      ['() => ({ then: (ok) => setTimeout(ok, 1, 7) })', 1, 7],
      ['() => "\\ud83d\\ude00\\ud800"', 1, '\ud83d\ude00\ud800'],
      ['function () { return typeof this }', 1, 'object'],
      ['(a, b, ...rest) => rest.length', 1, 0, { kind: 'function' }],
    ]),
  );

  test(
    'ctx',
    withHost(async (host) => {
      const source = `(input, ctx) => ({ body: ctx.body, data: ctx.data, secrets: ctx.secrets, meta: ctx.meta, params: ctx.params, query: ctx.query,
      headers: ctx.headers, configuration: ctx.configuration, callId: ctx.callId, tenant: ctx.tenant, function: ctx.function,
      left: ctx.deadline > 0 && ctx.deadline <= 5000, aborted: ctx.signal.aborted })`;
      const x = await host.run(
        source,
        { a: 1, S: 'mine' },
        {
          secrets: { S: 'secret' },
          rev: '1',
          meta: { m: '1' },
          config: { c: 'd' },
          id: 'id1',
          tenant: 'acme',
          name: 'fn',
          ms: 5000,
        },
      );
      assert.deepEqual(x.value, {
        body: { a: 1, S: 'mine' },
        data: { S: 'secret', a: 1 },
        secrets: { S: 'secret' },
        meta: { m: '1' },
        params: {},
        query: {},
        headers: {},
        configuration: { c: 'd', S: 'secret' },
        callId: 'id1',
        tenant: 'acme',
        function: 'fn',
        left: true,
        aborted: false,
      });
      const y = await host.run('(input, { body, secrets }) => { return [body, secrets] }', 3, { secrets: { a: 'b' } });
      assert.deepEqual(y.value, [3, { a: 'b' }]);
      const z = await host.run('(input, ctx) => { ctx.data = 1; ctx.own = 2; return [ctx.data, ctx.own] }', 3);
      assert.deepEqual(z.value, [1, 2]);
    }),
  );

  test(
    'callbacks',
    rows([
      ['(ctx, cb) => cb(null, ctx.body)', 5, 5],
      ['function (ctx, done) { setTimeout(done, 1, null, ctx.data) }', { a: 1 }, { a: 1 }],
      ['(cb) => cb(null, 1)', 0, 1],
      ['(callback) => { callback() }', 0, null],
      ['(next) => 7', 0, 7],
      ['async (cb) => 7', 0, 7],
      ['(ctx, cb) => Promise.resolve(8)', 0, 8],
      ['(cb) => setTimeout(() => cb(null, "later"), 2)', 0, 'later'],
      ['async (cb) => { setTimeout(() => cb(null, "later"), 2) }', 0, 'later'],
      ['(cb) => { cb(null, 1); cb(null, 2); cb(new Error("x")); throw new Error("y") }', 0, 1],
      ['(cb) => { cb(null, 1); return 2 }', 0, 1],
      ['async (cb) => { cb(null, 1); throw new Error("late") }', 0, 1],
      ['(cb) => cb(0, 1)', 0, 1],
      ['(input, ctx, cb) => cb(null, [input, ctx.body])', 4, [4, 4], { kind: 'function' }],
      ['module.exports = (cb) => cb(null, 3)', 4, 3, { kind: 'webtask' }],
      ['module.exports = (x, y) => y(null, x.body)', 4, 4, { kind: 'webtask' }],
      ['module.exports = (user, context) => context(null, user.body)', 4, 4, { kind: 'webtask' }],
      [
        'return function (cb) { cb(null, module.webtask.secrets) }',
        4,
        { a: 'b' },
        { kind: 'webtask', secrets: { a: 'b' } },
      ],
    ]),
  );

  test(
    'what is no function',
    withHost(async (host) => {
      for (const [source, kind, message] of [
        ['module.exports = 5', 'auto', /must return or export a function/],
        ['exports.a = 1', 'function', /must return or export a function/],
        ['1 + 1', 'auto', /must return or export a function/],
        ['return () => 1', 'webtask', /one of the following signatures/],
        ['return (a, b, c, d) => 1', 'webtask', /one of the following signatures/],
        ['return (a) => 1', 'action', /must export a handler/],
      ]) {
        const x = await host.run(source, 1, { kind });
        assert.equal(x.outcome, 'error', source);
        assert.equal(x.error.code, 'ERR_SHAPE');
        assert.match(x.error.message, message);
      }
    }),
  );
});

describe('rules', () => {
  const input = { user: { user_id: 'u', extra: 1 }, context: { clientID: 'c', other: [] } };

  test(
    'pipeline step',
    rows([
      ['function (user, context, callback) { callback(null, user, context) }', input, input],
      [
        'function (user, context, callback) { user.a = 1; context.b = 2; callback() }',
        input,
        { user: { user_id: 'u', extra: 1, a: 1 }, context: { clientID: 'c', other: [], b: 2 } },
      ],
      [
        'async (user, context, callback) => { await null; callback(null, { a: 1 }) }',
        input,
        { user: { a: 1 }, context: input.context },
      ],
      ['function (u, c, cb) { return cb(null, u, c); }', input, input],
      ['function (user, context, callback) { callback(null, user, context) }', {}, { user: {}, context: {} }],
      ['(a, b, c) => c(null, a, b)', input, input, { kind: 'rule' }],
      ['module.exports = (a, b, c) => c(null, a, b)', input, input, { loadKind: 'rule' }],
      ['function (user, context, callback) { callback(null, user, context); callback(new Error("no")) }', input, input],
      [
        `function (user, context, callback) { ${'// a long line of comment\n'.repeat(3600)} callback(null, user, context) }`,
        input,
        input,
      ],
    ]),
  );

  test(
    'globals',
    withHost(async (host) => {
      const source = `function (user, context, callback) {
      const e = new UnauthorizedError('m');
      global.count = (global.count || 0) + 1;
      configuration.own = 'mine';
      callback(null, {
        error: [e instanceof Error, e instanceof UnauthorizedError, e.name, e.message],
        configuration: configuration, missing: typeof configuration.missing,
        auth0: [auth0.domain, auth0.baseUrl, auth0.accessToken, typeof auth0.users.updateUserMetadata, typeof auth0.users.updateAppMetadata],
        hash: crypto.createHash('sha1').update('x').digest('hex').length, q: querystring.stringify({ a: 1 }), url: typeof url.parse,
        env: Object.keys(process.env).filter((k) => /SECRET|KEY|TOKEN/i.test(k)), version: process.version, count: global.count,
      });
    }`;
      const options = { config: { a: 'b' }, secrets: { 'auth0.domain': 'acme.example', 'auth0.accessToken': 't' } };
      const want = {
        error: [true, true, 'UnauthorizedError', 'm'],
        configuration: { a: 'b', own: 'mine', ...options.secrets },
        missing: 'undefined',
        auth0: ['acme.example', 'https://acme.example/api/v2', 't', 'function', 'function'],
        hash: 40,
        q: 'a=1',
        url: 'function',
        env: [],
        version: process.version,
        count: 1,
      };
      const x = await host.run(source, input, options);
      assert.deepEqual(x.value.user, want);
      const y = await host.run(
        'function (user, context, callback) { callback(null, [configuration, global.count]) }',
        input,
        options,
      );
      const settings = { a: 'b', ...options.secrets };
      assert.deepEqual(y.value.user, [settings, 1], 'writes to configuration do not outlive the run, global does');
    }),
  );

  test(
    'runs at the same time keep their own settings',
    withHost(async (host) => {
      const source =
        'function (user, context, callback) { setTimeout(() => callback(null, { c: configuration.n }), 2) }';
      host.load(source);
      const calls = Array.from(
        { length: 20 },
        (_, i) => host.open(sha(source), input, { config: { n: `${i}` } }).answered,
      );
      assert.deepEqual(
        (await Promise.all(calls)).map((x) => x.value.user.c),
        calls.map((_, i) => `${i}`),
      );
    }),
  );

  test(
    'refusals and errors',
    withHost(async (host) => {
      const cases = [
        [
          'callback(new UnauthorizedError("not today"))',
          { name: 'UnauthorizedError', message: 'not today', denied: true },
        ],
        ['callback("Access denied")', { name: 'Error', message: 'Access denied', denied: undefined }],
        ['callback(new TypeError("t"))', { name: 'TypeError', message: 't', denied: undefined }],
        ['throw new UnauthorizedError("thrown")', { name: 'UnauthorizedError', message: 'thrown', denied: true }],
        ['throw "text"', { name: 'Error', message: 'text', denied: undefined }],
        ['throw null', { name: 'Error', message: 'null', denied: undefined }],
        [
          'setTimeout(() => { throw new RangeError("timer") }, 1)',
          { name: 'RangeError', message: 'timer', denied: undefined },
        ],
        [
          'process.nextTick(() => { throw new RangeError("tick") })',
          { name: 'RangeError', message: 'tick', denied: undefined },
        ],
        [
          'Promise.reject(new RangeError("unhandled"))',
          { name: 'RangeError', message: 'unhandled', denied: undefined },
        ],
        ['(async () => { await null; user.no.no() })()', { name: 'TypeError', denied: undefined }],
        [
          'callback({ message: "object", code: "E", statusCode: 418 })',
          { message: 'object', code: 'E', statusCode: 418 },
        ],
        ['callback({ a: 1 })', { message: '{"a":1}' }],
      ];
      for (const [body, want] of cases) {
        const x = await host.run(`function (user, context, callback) { ${body} }`, input);
        assert.equal(x.outcome, 'error', body);
        for (const [key, value] of Object.entries(want)) assert.deepEqual(x.error[key], value, `${body}: ${key}`);
        await x.settled;
      }
      const x = await host.run('async (user, context, callback) => { throw new UnauthorizedError("async") }', input);
      assert.deepEqual([x.error.name, x.error.denied], ['UnauthorizedError', true]);
    }),
  );
});

describe('actions', () => {
  test(
    'effects are collected',
    withHost(async (host) => {
      const x = await host.run(
        `exports.onContinuePostLogin = async () => { throw new Error('not this one') };
      exports.onExecutePostLogin = async (event, api) => {
        if (typeof auth0 !== 'undefined' || typeof configuration !== 'undefined' || typeof UnauthorizedError !== 'undefined') throw new Error('globals');
        await null;
        api.idToken.setCustomClaim('https://x/a', event.user.email).accessToken.addScope('s').accessToken.setCustomClaim('b', 2);
        api.user.setUserMetadata('k', 1).user.setAppMetadata('l', 2).multifactor.enable('any', { allowRememberBrowser: false });
        api.redirect.sendUserTo('https://x.example/y', { query: { t: event.secrets.KEY } });
        api.authentication.setPrimaryUser('u2').samlResponse.setAttribute('n', 'v').samlResponse.setAudience('aud');
      }`,
        { event: { user: { email: 'a@b.c' } } },
        { secrets: { KEY: 'k y' } },
      );
      const { commands, ...effects } = x.value;
      assert.deepEqual(effects, {
        idToken: { claims: { 'https://x/a': 'a@b.c' } },
        accessToken: { addScopes: ['s'], claims: { b: 2 } },
        user: { user_metadata: { k: 1 }, app_metadata: { l: 2 } },
        multifactor: { provider: 'any', options: { allowRememberBrowser: false } },
        redirect: { url: 'https://x.example/y?t=k+y' },
        authentication: { primaryUser: 'u2' },
        samlResponse: { attributes: { n: 'v' }, audience: 'aud' },
      });
      assert.equal(commands.length, 10);
      assert.deepEqual(commands[0], ['idToken.setCustomClaim', 'https://x/a', 'a@b.c']);
    }),
  );

  test(
    'denial, errors, tokens, cache, the handler by trigger',
    withHost(async (host) => {
      const deny = await host.run('exports.onExecutePostLogin = async (event, api) => { api.access.deny("no") }', {
        user: {},
      });
      assert.deepEqual(deny.value.access, { denied: true, reason: 'no' });
      const fail = await host.run('exports.onExecutePostLogin = async () => { throw new Error("x") }', {});
      assert.deepEqual([fail.outcome, fail.error.message], ['error', 'x']);
      const token = await host.run(
        `exports.onExecutePostLogin = async (event, api) => {
      const t = api.redirect.encodeToken({ secret: 's', payload: { p: 1 } });
      event.request = { query: { session_token: t } };
      api.user.setUserMetadata('p', api.redirect.validateToken({ secret: 's' }).p);
      try { api.redirect.validateToken({ secret: 'other' }) } catch (e) { api.user.setUserMetadata('e', e.message) }
      api.cache.set('c', 'v', { ttl: 1000 });
      api.user.setUserMetadata('c', api.cache.get('c').value);
    }`,
        { user: { user_id: 'u' } },
      );
      assert.deepEqual(token.value.user.user_metadata, { p: 1, e: "the token's signature is wrong", c: 'v' });
      const two =
        'exports.onExecuteA = async (e, api) => api.access.deny("a"); exports.onContinueA = async (e, api) => api.access.deny("c")';
      const x = await host.run(two, {}, { kind: 'action', meta: { trigger: 'onContinueA' } });
      assert.equal(x.value.access.reason, 'c');
      const y = await host.run(
        'export const onExecutePostLogin = async (event, api) => { api.access.deny("esm") }',
        {},
      );
      assert.equal(y.value.access.reason, 'esm');
    }),
  );
});

test('Host is what the other suites use', () => assert.equal(typeof Host, 'function'));
