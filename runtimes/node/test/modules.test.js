'use strict';
// require: builtin and curated modules, versions, what is not there.

const assert = require('node:assert');
const { test } = require('node:test');
const { withHost } = require('./host.js');
const { curated } = require('./curated.js');
const manifest = require('../package.json');

const dir = curated();
const modules = { env: { PADDOCK_MODULES: dir } };
const one = async (host, expression) => {
  const x = await host.run(`async () => (${expression})`, 1);
  assert.equal(x.outcome, 'ok', `${expression}: ${x.error?.message}`);
  return x;
};

test('versions are exact', () => {
  for (const [name, version] of Object.entries(manifest.dependencies))
    assert.match(version, /^(npm:uuid@)?\d+\.\d+\.\d+$/, name);
});

test(
  'every curated module loads',
  withHost(
    async (host) => {
      for (const name of Object.keys(manifest.dependencies)) {
        if (name === 'uuid-current' && process.versions.node.startsWith('20.')) continue; // an ES module: node 24 requires those
        const x = await one(host, `typeof require(${JSON.stringify(name)})`);
        assert.match(x.value, /function|object/, name);
        assert.ok(
          x.logs.every((l) => l.level !== 'error'),
          `${name}: ${JSON.stringify(x.logs)}`,
        );
      }
      assert.equal((await one(host, 'typeof require("@auth0/rule-utilities").Auth0RedirectRule')).value, 'function');
    },
    {},
    modules,
  ),
);

test(
  'what the templates do with them',
  withHost(
    async (host) => {
      const cases = [
        ['typeof require("uuid")() + typeof require("uuid").v4()', 'stringstring'],
        ['require("lodash").chunk([1, 2, 3], 2)', [[1, 2], [3]]],
        ['_.sum([1, 2])', 3],
        ['typeof uuid.v4()', 'string'],
        ['jwt.verify(jwt.sign({ a: 1 }, "s"), "s").a', 1],
        ['typeof request.get', 'function'],
        ['require("moment-timezone").tz("2020-01-01T00:00:00Z", "Asia/Tokyo").hour()', 9],
        ['ipaddr.parse("10.0.0.1").range()', 'private'],
        ['new xmldom.DOMParser().parseFromString("<a b=\\"c\\"/>").documentElement.getAttribute("b")', 'c'],
        ['typeof xpath.select', 'function'],
        ['require("oauth-sign").hmacsign("GET", "http://a", {}, "x", "y").length', 28],
        ['require("lodash/fp").map((x) => x + 1)([1])', [2]],
        ['await new Promise((ok) => async.parallel([(d) => d(null, 1)], (e, r) => ok(r)))', [1]],
        ['require("cheerio").load("<p>x</p>")("p").text()', 'x'],
        ['require("zod").z.string().safeParse(1).success', false],
        ['typeof require("auth0").ManagementClient', 'function'],
        [
          'typeof require("mongodb").MongoClient + typeof require("pg").Client + typeof require("tedious").Connection + typeof require("mysql2").createConnection',
          'functionfunctionfunctionfunction',
        ],
        ['typeof require("redis").createClient', 'function'],
        ['require("qs").parse("a[b]=1")', { a: { b: '1' } }],
        ['typeof (await import("ws")).WebSocketServer', 'function'],
        ['typeof require("webtask-tools").fromExpress', 'function'],
        ['typeof require("slack-notify")', 'function'],
      ];
      for (const [expression, want] of cases) assert.deepEqual((await one(host, expression)).value, want, expression);
    },
    {},
    modules,
  ),
);

test(
  'a version that is not installed gives the nearest, with a warning',
  withHost(
    async (host) => {
      const x = await one(host, 'require("lodash@3.10.1").VERSION');
      assert.equal(x.value, manifest.dependencies.lodash);
      assert.deepEqual(
        x.logs.map((l) => [l.level, l.text]),
        [['warn', `lodash@3.10.1 is not installed, lodash@${manifest.dependencies.lodash} is used`]],
      );
      assert.deepEqual(x.result.warnings, [x.logs[0].text]);
      for (const quiet of [
        `lodash@${manifest.dependencies.lodash}`,
        'lodash@4',
        'lodash@^4.0.0',
        'lodash@latest',
        'fs@1.0.0',
        '@auth0/rule-utilities@0.1.0',
        'uuid@3.3.2',
        'uuid@3',
      ]) {
        const y = await one(host, `typeof require(${JSON.stringify(quiet)})`);
        if (quiet !== 'uuid@3.3.2') assert.deepEqual(y.logs, [], quiet);
      }
      const sub = await one(host, 'require("lodash@4.0.0/chunk")([1, 2], 1)');
      assert.deepEqual(sub.value, [[1], [2]]);
      if (!process.versions.node.startsWith('20.')) {
        const uuid = await one(host, '[typeof require("uuid@9.0.1").v7(), typeof require("uuid@3.0.0")()]');
        assert.deepEqual(uuid.value, ['string', 'string']);
      }
    },
    {},
    modules,
  ),
);

test(
  'what is not there is an ordinary error with its name',
  withHost(
    async (host) => {
      for (const name of [
        'left-pad',
        'left-pad@1.0.0',
        '@scope/none@1.0.0',
        './file',
        '../x',
        '/etc/passwd',
        '/paddock/link.js',
        'lodash/../express',
        'lodash/none',
        'file:///etc/passwd',
        '',
        'node:none',
        '@',
        '__proto__',
        'constructor',
        'a\\0b',
      ]) {
        const x = await host.run(`() => require(${JSON.stringify(name)})`, 1);
        assert.equal(x.outcome, 'error', name);
        assert.equal(x.error.code, 'MODULE_NOT_FOUND', `${name}: ${x.error.message}`);
        assert.ok(x.error.message.includes(name), name);
      }
      assert.equal((await host.run('() => require(5)', 1)).error.name, 'TypeError');
      assert.match((await host.run('async () => import("left-pad")', 1)).error.message, /left-pad/);
    },
    {},
    modules,
  ),
);

test(
  'builtin modules',
  withHost(
    async (host) => {
      for (const name of [
        'fs',
        'node:fs',
        'crypto',
        'url',
        'querystring',
        'fs/promises',
        'node:test',
        'stream',
        'zlib',
        'worker_threads',
      ]) {
        assert.match((await one(host, `typeof require("${name}")`)).value, /function|object/);
      }
      assert.equal((await one(host, 'require("process") === process')).value, true);
    },
    {},
    modules,
  ),
);
