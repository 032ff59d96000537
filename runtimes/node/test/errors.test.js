'use strict';
// What goes wrong in tenant code: one outcome, charged to the right call, and the next call unharmed.

const assert = require('node:assert');
const { test, describe } = require('node:test');
const { withHost, until, sha } = require('./host.js');

const OK = '() => "ok"';

// unharmed asserts that the agent still answers.
async function unharmed(host) {
  assert.equal((await host.run(OK, 1)).value, 'ok');
}

describe('compile errors', () => {
  test(
    "line, column and excerpt in the author's text",
    withHost(async (host) => {
      const cases = [
        ['function (a) {\n  foo(}\n}', 2, 7, '  foo(}\n      ^'],
        ['(a) => {{ }', 1, 12, '(a) => {{ }\n           ^'],
        [
          'function (user, context, callback) { var x = ; }',
          1,
          46,
          'function (user, context, callback) { var x = ; }\n' + ' '.repeat(45) + '^',
        ],
        ['const a = 1;\n\nlet b = }\n', 3, 9, 'let b = }\n        ^'],
        ['// c\r\nfunction (a) {\r\n return 1 +* 2\r\n}', 3, 12, null],
        ['export default (a) => {\n  return a +;\n}', 2, 13, '  return a +;\n            ^'],
        ['import x from "os";\nexport const onExecute = (a) => { b c }', 2, 37, null],
        ['function (a) {};', 1, null, null],
      ];
      for (const [source, line, column, excerpt] of cases) {
        const { name, error } = await host.load(source, { name: 'mine.js' });
        assert.equal(name, 'LOAD_FAILED', source);
        assert.equal(error.name, 'SyntaxError');
        assert.ok(error.message.length > 0);
        assert.equal(error.line, line, `${source}: line`);
        if (column !== null) assert.equal(error.column, column, `${source}: column`);
        if (excerpt !== null) assert.equal(error.excerpt, excerpt);
        const x = await host.open(sha(source), 1).answered;
        assert.deepEqual([x.outcome, x.error], ['load_error', error]);
        assert.ok(x.isSettled);
      }
      await unharmed(host);
    }),
  );

  test(
    'odd sources',
    withHost(async (host) => {
      for (const source of ['\0', '\ud800', '}'.repeat(1000), '('.repeat(5000), '`${', '/*', "'"]) {
        const { name, error } = await host.load(source);
        assert.equal(name, 'LOAD_FAILED', JSON.stringify(source.slice(0, 10)));
        assert.ok(error.name && error.message);
      }
      assert.equal((await host.load('')).name, 'LOADED', 'an empty body is a body');
      const long = `function (a) { ${'var x = 1; '.repeat(90000)} bad( }`; // 1 MB on one line
      const { error } = await host.load(long);
      assert.equal(error.line, 1);
      assert.ok(error.excerpt.length < 400, 'an excerpt is short');
      await unharmed(host);
    }),
  );

  test(
    'compiling runs nothing',
    withHost(async (host) => {
      await host.load('console.log("ran"); global.ran = true; module.exports = () => 1');
      await host.load('(console.log("ran"), () => 1)');
      await host.load('console.log("ran"); export default () => 1');
      const x = await host.run('() => global.ran ?? "no"', 1);
      assert.equal(x.value, 'no');
      assert.deepEqual(host.logs, []);
    }),
  );
});

describe('exits', () => {
  test(
    'are errors of the call',
    withHost(async (host) => {
      for (const body of [
        'process.exit(3)',
        'process.exit()',
        'process.abort()',
        'process.kill(process.pid)',
        'process.kill(process.pid, "SIGKILL")',
        'process.kill(0, 9)',
        'process.reallyExit(1)',
        'try { process.exit(1) } catch {} return "survived"',
        'require("process").exit(1)',
      ]) {
        const x = await host.run(`(a) => { ${body}; }`, 1);
        assert.equal(x.outcome, 'error', body);
        assert.equal(x.error.code, 'ERR_EXIT');
        assert.match(x.error.message, /was called/);
        await x.settled;
        const later = await host.run(`(cb) => { setTimeout(() => { ${body} }, 1) }`, 1);
        assert.deepEqual([later.outcome, later.error.code], ['error', 'ERR_EXIT'], `${body} in a timer`);
        await later.settled;
        const top = await host.run(`${body}; module.exports = () => 1`, 1);
        assert.deepEqual([top.outcome, top.error.code], ['error', 'ERR_EXIT'], `${body} at the top`);
      }
      assert.equal((await host.run('() => process.kill(process.pid, 0)', 1)).value, true);
      await unharmed(host);
    }),
  );
});

describe('what is thrown', () => {
  test(
    "name, message, code, status, stack of the tenant's frames",
    withHost(async (host) => {
      const source = `function inner() {
  throw Object.assign(new TypeError('broken'), { code: 'E_X', statusCode: 418 });
}
module.exports = (input) => inner();`;
      const x = await host.run(source, 1, { file: 'mine.js' });
      assert.deepEqual(x.error, {
        name: 'TypeError',
        message: 'broken',
        code: 'E_X',
        statusCode: 418,
        stack: 'TypeError: broken\n    at inner (mine.js:2:23)\n    at module.exports (mine.js:4:29)',
      });
      const caused = await host.run('() => { throw new Error("outer", { cause: new Error("inner") }) }', 1);
      assert.match(caused.error.stack, /\[cause\] Error: inner/);
    }),
  );

  test(
    "bundled code: the author's file, line and column",
    withHost(async (host) => {
      // as a bundler makes it of two files
      const map = {
        version: 3,
        sources: ['lib/check.ts', 'rule.ts'],
        mappings: ';AACO,kBAAyB,GAAW;AACzC,QAAM,IAAI,MAAM,OAAO;AACzB;ACAA,cAAS',
        names: [],
      };
      const comment = (text) =>
        '//# sourceMappingURL=data:application/json;base64,' + Buffer.from(text).toString('base64');
      const code = 'var a = 1;\nfunction check(n) {\n  throw new Error("wrong");\n}\nmodule.exports = () => check(1);\n';
      const x = await host.run(code + comment(JSON.stringify(map)), 1, { file: 'rule.js' });
      assert.match(x.error.stack, /^Error: wrong\n    at check \(lib\/check\.ts:3:\d+\)\n    at module\.exports \(rule\.ts:/);
      for (const odd of ['{', 'null', '{"version":3,"sources":[],"mappings":"!!!"}', '{"version":3,"sources":5,"mappings":7}']) {
        const y = await host.run(code + `// ${odd}\n` + comment(odd), 1, { file: 'odd.js' });
        assert.match(y.error.stack, /^Error: wrong\n    at check \(odd\.js:3:9\)/, odd);
      }
      const z = await host.run(code + '// none', 1, { file: 'rule.js' });
      assert.match(z.error.stack, /at check \(rule\.js:3:9\)/, 'the next code of that name has no map');
      await unharmed(host);
    }),
  );

  test(
    'things that fight back',
    withHost(async (host) => {
      const cases = [
        'throw undefined',
        'throw 0',
        'throw {}',
        'throw []',
        'throw Symbol("s")',
        'throw () => 1',
        'throw Object.create(null)',
        'throw new Proxy({}, { get() { throw new Error("trap") }, getPrototypeOf() { throw 1 } })',
        'throw { get message() { throw 1 }, get stack() { throw 2 }, get name() { throw 3 } }',
        'throw { toString() { throw 1 }, toJSON() { throw 2 } }',
        'throw Object.assign(new Error("m"), { name: { toString() { throw 1 } }, stack: 5, code: {}, statusCode: "x" })',
        'throw { message: { toString() { return "from an object" } } }',
        'throw new Error("x".repeat(1e6))',
        'throw new Error("\u00e9\ud83d\ude00".repeat(1e5))',
        'Error.prepareStackTrace = () => ({}); throw new Error("p")',
        '(function f() { f() })()',
        'JSON.parse("[".repeat(1e5))',
        'null.x',
        'const e = new Error("loop"); e.cause = e; throw e',
      ];
      for (const body of cases) {
        const x = await host.run(`(a) => { ${body} }`, 1);
        assert.equal(x.outcome, 'error', body);
        assert.equal(typeof x.error.message, 'string', body);
        assert.equal(typeof x.error.name, 'string', body);
        assert.ok(Buffer.byteLength(x.error.message) <= 8192, body);
        assert.ok(Buffer.byteLength(x.error.stack ?? '') <= 16384, body);
        const y = await host.run(`(cb) => { setImmediate(() => { ${body} }) }`, 1);
        assert.equal(y.outcome, 'error', `${body} later`);
      }
      await unharmed(host);
    }),
  );

  test(
    'values that are no JSON',
    withHost(async (host) => {
      for (const [value, message] of [
        ['1n', /BigInt/],
        ['(() => { const o = {}; o.o = o; return o })()', /circular/],
        ['({ toJSON() { throw new RangeError("mine") } })', /mine/],
        ['({ get x() { throw new Error("getter") } })', /getter/],
        ['new Proxy({}, { ownKeys() { throw new Error("trap") } })', /trap/],
        ['Array(40).fill("x".repeat(2 ** 24))', null],
      ]) {
        const x = await host.run(`() => ${value}`, 1);
        if (message === null) {
          assert.ok(['error', 'output_too_large'].includes(x.outcome));
          continue;
        }
        assert.deepEqual([x.outcome, x.error.code], ['error', 'ERR_SERIALIZE'], value);
        assert.match(x.error.message, message);
        assert.ok(x.isSettled);
        const y = await host.run(`async () => ${value}`, 1);
        assert.equal(y.error.code, 'ERR_SERIALIZE');
      }
      await unharmed(host);
    }),
  );

  test(
    'an answer that is too large',
    withHost(
      async (host) => {
        const source = '(n) => "x".repeat(n)';
        host.load(source);
        assert.equal((await host.open(sha(source), 98, { maxOutput: 100 }).answered).outcome, 'ok');
        const x = await host.open(sha(source), 99, { maxOutput: 100 }).answered;
        assert.deepEqual([x.outcome, x.text, x.isSettled], ['output_too_large', '', true]);
        assert.equal((await host.open(sha(source), 2000).answered).outcome, 'output_too_large', 'by WELCOME');
        const two = '(n) => "\u00fc".repeat(n)';
        host.load(two);
        assert.equal((await host.open(sha(two), 49, { maxOutput: 100 }).answered).outcome, 'ok');
        assert.equal(
          (await host.open(sha(two), 50, { maxOutput: 100 }).answered).outcome,
          'output_too_large',
          'bytes count, not units',
        );
      },
      { maxOutput: 1000 },
    ),
  );

  test(
    'input that is no JSON',
    withHost(
      async (host) => {
        for (const raw of ['{', 'undefined', '{"a":1}x', '\0']) {
          const x = await host.run('(a) => { console.log("ran") }', undefined, { raw });
          assert.equal(x.outcome, 'invalid', raw);
          assert.match(x.error.message, /not JSON/);
          assert.deepEqual([x.isSettled, x.logs], [true, []]);
        }
        const big = await host.run('(a) => 1', 'x'.repeat(200000));
        assert.equal(big.outcome, 'invalid');
        assert.match(big.error.message, /larger than 100000/);
      },
      { maxInput: 100000 },
    ),
  );

  test(
    'a module whose top level throws is tried again',
    withHost(async (host) => {
      const source =
        'global.n = (global.n || 0) + 1; if (global.n < 3) throw new Error("start " + global.n); module.exports = () => global.n';
      assert.equal((await host.run(source, 1)).error.message, 'start 1');
      assert.equal((await host.open(sha(source), 1).answered).error.message, 'start 2');
      assert.equal((await host.open(sha(source), 1).answered).value, 3);
      const esm = 'throw new Error("esm"); export default 1';
      assert.equal((await host.run(esm, 1)).error.message, 'esm');
      assert.equal((await host.open(sha(esm), 1).answered).error.message, 'esm');
      assert.match(
        (await host.run('import x from "no-such-module"; export default 1', 1)).error.message,
        /no-such-module/,
      );
    }),
  );
});

describe('late accidents', () => {
  test(
    'go to the call that caused them, never to another',
    withHost(async (host) => {
      const bad =
        '(input) => { setTimeout(() => { throw new Error("mine " + input) }, 5); return new Promise((ok) => setTimeout(ok, 400, "late")) }';
      const good = '(input) => new Promise((ok) => setTimeout(ok, 15, input))';
      host.load(bad);
      host.load(good);
      const calls = [];
      for (let i = 0; i < 20; i++) calls.push(host.open(sha(i % 2 ? bad : good), i));
      for (const [i, call] of calls.entries()) {
        const x = await call.answered;
        if (i % 2) assert.deepEqual([x.outcome, x.error.message], ['error', `mine ${i}`]);
        else assert.deepEqual([x.outcome, x.value], ['ok', i]);
      }
      await Promise.all(calls.map((c) => c.settled));
      await unharmed(host);
    }),
  );

  test(
    'after the answer they are lines in the log of their call',
    withHost(async (host) => {
      const x = await host.run(
        'async () => { setTimeout(() => { throw new Error("afterwards") }, 5); Promise.reject(new Error("forgotten")); return 1 }',
        1,
      );
      assert.equal(x.outcome, 'ok');
      await until(host, () => x.logs.length >= 2, 'two log lines');
      const texts = x.logs.map((l) => l.text).join('\n');
      assert.match(texts, /Uncaught Error: forgotten/);
      assert.match(texts, /Uncaught Error: afterwards/);
      assert.ok(x.logs.every((l) => l.level === 'error'));
      assert.deepEqual(host.logs, []);
      await unharmed(host);
    }),
  );

  test(
    "from sockets, files, workers' hosts and emitters",
    withHost(async (host) => {
      for (const body of [
        'require("fs").readFile("/etc/hosts", () => { throw new Error("E") })',
        'require("net").connect("/none").on("error", () => { throw new Error("E") })',
        'new (require("events"))().emit("error", new Error("E"))',
        'const t = new EventTarget(); t.addEventListener("x", () => { throw new Error("E") }); t.dispatchEvent(new Event("x"))',
        'queueMicrotask(() => { throw new Error("E") })',
        'require("crypto").randomBytes(8, () => { throw new Error("E") })',
        'const i = setInterval(() => { clearInterval(i); throw new Error("E") }, 1)',
      ]) {
        if (body.startsWith('queueMicrotask') && process.versions.node.startsWith('20.')) continue; // node 20 loses the context there
        const x = await host.run(`(cb) => { ${body} }`, 1);
        assert.deepEqual([x.outcome, x.error.message], ['error', 'E'], body);
        await x.settled;
      }
      await unharmed(host);
    }),
  );

  test(
    'tenant code that removes the listeners, or adds its own',
    withHost(async (host) => {
      await host.run(
        '() => { process.removeAllListeners("unhandledRejection"); process.removeAllListeners("uncaughtException"); }',
        1,
      );
      const x = await host.run('() => { Promise.reject(new Error("lost")); return new Promise(() => {}) }', 1);
      assert.deepEqual([x.outcome, x.error.message], ['error', 'lost']);
      const y = await host.run(
        '() => { setTimeout(() => { throw new Error("thrown") }, 1); return new Promise(() => {}) }',
        1,
      );
      assert.equal(y.error.message, 'thrown');
      assert.equal((await host.run('() => { process.setUncaughtExceptionCaptureCallback(null) }', 1)).outcome, 'error');
      await unharmed(host);
    }),
  );
});
