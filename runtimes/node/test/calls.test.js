'use strict';
// The life of calls: loading and forgetting code, instances, logs, cancelling, settling, credit, reconnecting, patched
// prototypes.

const assert = require('node:assert');
const { once } = require('node:events');
const { test, describe } = require('node:test');
const { withHost, until, sha, encode, T, END } = require('./host.js');

const pending = Symbol('pending');
const peek = (promise) => Promise.race([promise, new Promise((ok) => setImmediate(ok, pending))]);

describe('code', () => {
  test(
    'what is not loaded is said, and the stream is over',
    withHost(async (host) => {
      const x = await host.open('f'.repeat(64), 1).answered;
      assert.deepEqual(x.result, { outcome: 'not_loaded', hash: 'f'.repeat(64) });
    }),
  );

  test(
    'the least recently used is forgotten, by count',
    withHost(
      async (host) => {
        const sources = Array.from({ length: 6 }, (_, i) => `() => ${i}`);
        for (const s of sources.slice(0, 4)) await host.load(s);
        await host.open(sha(sources[0]), 1).answered; // used: stays
        await host.load(sources[4]);
        assert.equal((await host.open(sha(sources[1]), 1).answered).outcome, 'not_loaded');
        for (const i of [0, 2, 3, 4]) assert.equal((await host.open(sha(sources[i]), 1).answered).value, i);
      },
      { cacheEntries: 4 },
    ),
  );

  test(
    'and by bytes',
    withHost(
      async (host) => {
        const big = (n) => `() => ${n} /* ${'x'.repeat(40000)} */`;
        for (let i = 0; i < 3; i++) await host.load(big(i));
        assert.equal((await host.open(sha(big(0)), 1).answered).outcome, 'not_loaded');
        assert.equal((await host.open(sha(big(2)), 1).answered).value, 2);
      },
      { cacheBytes: 100000 },
    ),
  );

  test(
    'a source over 64 KiB',
    withHost(async (host) => {
      const source = `() => ${JSON.stringify('y'.repeat(300000))}.length`;
      assert.equal((await host.load(source)).name, 'LOADED');
      assert.equal((await host.open(sha(source), 1).answered).value, 300000);
    }),
  );

  test(
    'the top level runs once per revision, in the first call',
    withHost(async (host) => {
      const source =
        'console.log("top"); global.tops = (global.tops || 0) + 1; const s = module.webtask.secrets.K; module.exports = () => [s, global.tops]';
      host.load(source);
      const call = (rev, K) => host.open(sha(source), 1, { rev, secrets: { K } });
      const first = await call('1', 'a').answered;
      assert.deepEqual([first.value, first.logs.map((l) => l.text)], [['a', 1], ['top']]);
      const second = await call('1', 'ignored').answered;
      assert.deepEqual([second.value, second.logs], [['a', 1], []]);
      assert.deepEqual((await call('2', 'b').answered).value, ['b', 2]);
      assert.deepEqual((await call('2', 'b').answered).value, ['b', 2]);
      assert.deepEqual((await call('1', 'a').answered).value, ['a', 3], 'what a revision left behind is not used again');
      assert.deepEqual((await host.open(sha(source), 1).answered).value, [undefined, 4], 'nor without secrets');
    }),
  );

  test(
    'calls that come together share one evaluation',
    withHost(async (host) => {
      const source =
        'global.evals = (global.evals || 0) + 1; await new Promise((ok) => setTimeout(ok, 10)); export default () => global.evals';
      host.load(source);
      const calls = Array.from({ length: 10 }, () => host.open(sha(source), 1));
      for (const c of calls) assert.equal((await c.answered).value, 1);
    }),
  );
});

describe('logs', () => {
  test(
    'levels and forms',
    withHost(async (host) => {
      const x = await host.run(
        `(a, ctx) => {
      console.log('a %s %d', 'b', 3, { c: 1 }); console.info('i'); console.debug('d'); console.warn('w'); console.error(new Error('e').message);
      console.dir({ x: 1 }); console.table([{ a: 1 }]); console.assert(false, 'as'); console.assert(true, 'not');
      console.group('g'); console.log('in\\nside'); console.groupEnd(); console.log('out'); console.log(); console.count();
      process.stdout.write('raw\\n'); process.stdout.write(''); process.stderr.write(Buffer.from('bytes')); ctx.log('ctx %j', {}); ctx.log.error('ce');
      require('console').log('module'); console.trace('tr'); console.log('\\u0000\\ud800"');
    }`,
        1,
      );
      const seen = x.logs.map((l) => [l.level, l.text]);
      const trace = seen.splice(
        seen.findIndex(([, t]) => t.startsWith('Trace: tr')),
        1,
      )[0];
      assert.equal(trace[0], 'error');
      assert.deepEqual(seen, [
        ['info', 'a b 3 { c: 1 }'],
        ['info', 'i'],
        ['debug', 'd'],
        ['warn', 'w'],
        ['error', 'e'],
        ['info', '{ x: 1 }'],
        ['info', '┌─────────┬───┐\n│ (index) │ a │\n├─────────┼───┤\n│ 0       │ 1 │\n└─────────┴───┘'],
        ['warn', 'Assertion failed: as'],
        ['info', 'g'],
        ['info', '  in\n  side'],
        ['info', 'out'],
        ['info', ''],
        ['info', 'default: 1'],
        ['info', 'raw'],
        ['error', 'bytes'],
        ['info', 'ctx {}'],
        ['error', 'ce'],
        ['info', 'module'],
        ['info', '\0\ufffd"'],
      ]);
      assert.ok(x.logs.every((l) => Math.abs(l.t - Date.now()) < 60000));
      assert.equal(host.output, '', 'nothing goes to the descriptors');
    }),
  );

  test(
    "show neither the agent's frames nor secrets",
    withHost(async (host) => {
      const x = await host.run('(a, ctx) => { console.log(ctx); console.error(new Error("seen")) }', 1, {
        secrets: { K: 'hidden' },
      });
      assert.match(x.logs[0].text, /secrets: \{ K: '\[secret\]' \}/);
      assert.ok(!x.logs[0].text.includes('hidden'));
      assert.equal(x.logs[1].text, 'Error: seen\n    at code.js:1:47');
    }),
  );

  test(
    'go to the right call under concurrency',
    withHost(async (host) => {
      const source = `async (n) => {
      console.log('start ' + n);
      await new Promise((ok) => setTimeout(ok, n % 7));
      setTimeout(() => {}, 1);
      console.log('timer ' + n);
      await require('fs/promises').readFile('/etc/hosts');
      process.stdout.write('fs ' + n + '\\n');
      await new Promise((ok) => process.nextTick(ok));
      console.error('end ' + n);
      return n;
    }`;
      host.load(source);
      const calls = Array.from({ length: 50 }, (_, i) => host.open(sha(source), i));
      for (const [i, c] of calls.entries()) {
        const x = await c.answered;
        assert.deepEqual(
          x.logs.map((l) => l.text),
          [`start ${i}`, `timer ${i}`, `fs ${i}`, `end ${i}`],
        );
      }
      assert.deepEqual(host.logs, []);
    }),
  );

  test(
    "after the call is over they are still the call's",
    withHost(async (host) => {
      const x = await host.run('() => { setTimeout(() => console.log("late"), 5); return 1 }', 1);
      assert.ok(x.isSettled);
      await host.run('() => 2', 1);
      await until(host, () => x.logs.length > 0, 'the late line');
      assert.equal(x.logs[0].text, 'late');
      assert.deepEqual(host.logs, []);
    }),
  );

  test(
    "between RESULT and SETTLED they are the call's",
    withHost(async (host) => {
      const x = await host.run(
        'async (cb) => { cb(null, 1); await new Promise((ok) => setTimeout(ok, 10)); console.log("between") }',
        1,
      );
      assert.equal(x.isSettled, false);
      await x.settled;
      assert.deepEqual(
        x.logs.map((l) => l.text),
        ['between'],
      );
    }),
  );

  test(
    'maxLog bounds a call and what is dropped is counted',
    withHost(async (host) => {
      const x = await host.run('() => { for (let i = 0; i < 100; i++) console.log("x".repeat(100)) }', 1, {
        maxLog: 1000,
      });
      const kept = x.logs.reduce((n, l) => n + l.text.length, 0);
      const dropped = x.logs.reduce((n, l) => n + (l.dropped ?? 0), 0);
      assert.equal(kept, 1000);
      assert.equal(dropped, 9000);
      const big = await host.run('() => { console.log("y".repeat(1e6)) }', 1);
      assert.equal(
        big.logs.reduce((n, l) => n + l.text.length + (l.dropped ?? 0), 0),
        1e6,
      );
    }),
  );

  test(
    "the link's log credit is kept, and comes back",
    withHost(
      async (host) => {
        const source = '(n) => { for (let i = 0; i < n; i++) console.log("z".repeat(1000)) }';
        const x = await host.run(source, 50); // the fake host fails the test where credit is exceeded
        assert.ok(x.logs.length >= 2 && x.logs.length <= 4, `${x.logs.length} lines`);
        host.creditLogs(100000);
        const y = await host.open(sha(source), 5).answered;
        assert.equal(y.logs.filter((l) => l.text.length === 1000).length, 5);
      },
      { logWindow: 4000 },
    ),
  );
});

describe('many calls that keep the loop busy', () => {
  const busy = '(n) => { console.log(String(n)); for (const end = Date.now() + 40; Date.now() < end; ); return n }';
  const ran = (calls) => calls.filter((c) => c.logs.length > 0).map((c) => Number(c.logs[0].text));

  test(
    'what waits for its turn is cancelled without having run, and a PING does not wait for all of them',
    withHost(async (host) => {
      await host.load(busy);
      const calls = [];
      for (let i = 0; i < 20; i++) calls.push(host.open(sha(busy), i));
      await host.ping();
      assert.ok(!calls[19].complete, 'the PING came after the last call');
      for (const c of calls.slice(10)) host.cancel(c);
      await Promise.all(calls.map((c) => c.answered));
      const cancelled = calls.filter((c) => c.outcome === 'cancelled');
      assert.ok(cancelled.length >= 5, `${cancelled.length} were cancelled`);
      const never = cancelled.filter((c) => c.logs.length === 0);
      assert.ok(never.length >= cancelled.length - 1, 'only one could run when the CANCEL came');
      assert.ok(
        never.every((c) => c.isSettled),
        'what never ran is over',
      );
      assert.deepEqual(
        ran(calls.slice(0, 10)),
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
        'the others ran in their order',
      );
    }),
  );

  test(
    'with more work than time the newest goes first',
    withHost(async (host) => {
      await host.load(busy);
      const order = [];
      const calls = [];
      for (let i = 0; i < 12; i++) {
        const c = host.open(sha(busy), i, { ms: 200 });
        c.answered.then(() => order.push(i));
        calls.push(c);
      }
      await Promise.all(calls.map((c) => c.answered));
      assert.equal(order[0], 0);
      const second = order.indexOf(11);
      assert.ok(second < 8, `the newest came ${second}th: ${order}`);
      assert.ok(order[11] < 8, `the last was ${order[11]}: ${order}`);
    }),
  );
});

describe('cancel', () => {
  test(
    'answers at once, aborts the signal, settles when the code has ended',
    withHost(async (host) => {
      const source = `(input, ctx) => new Promise((ok) => { console.log('running'); ctx.signal.addEventListener('abort', () => { console.log('aborted'); setTimeout(ok, 20) }) })`;
      host.load(source);
      const call = host.open(sha(source), 1);
      await until(host, () => call.logs.length > 0);
      host.cancel(call);
      const x = await call.answered;
      assert.deepEqual([x.outcome, x.isSettled], ['cancelled', false]);
      await x.settled;
      assert.deepEqual(
        x.logs.map((l) => l.text),
        ['running', 'aborted'],
      );
    }),
  );

  test(
    'code that pays no heed stays unsettled',
    withHost(async (host) => {
      host.load('() => new Promise(() => {})');
      const call = host.open(sha('() => new Promise(() => {})'), 1);
      await host.ping();
      host.cancel(call, 'deadline');
      host.cancel(call, 'deadline');
      assert.equal((await call.answered).outcome, 'cancelled');
      await host.ping();
      assert.equal(call.isSettled, false);
    }),
  );

  test(
    'callbacks, calls that are over, unknown streams, bodies that still come',
    withHost(async (host) => {
      const source = '(ctx, cb) => { setTimeout(cb, 30, null, 1) }';
      host.load(source);
      const call = host.open(sha(source), 1);
      await host.ping();
      host.cancel(call);
      assert.equal((await call.answered).outcome, 'cancelled');
      await call.settled;
      host.cancel(call);
      host.cancel({ stream: 4000000000 });
      const waiting = host.open(sha(source), undefined, { raw: '"half', more: true });
      await host.ping();
      host.cancel(waiting);
      assert.equal((await waiting.answered).outcome, 'cancelled');
      assert.ok(waiting.isSettled, 'nothing of it ever ran');
      host.data(waiting, ' done"', true);
      await host.ping();
      assert.equal((await host.open(sha(source), 2).answered).value, 1);
      const late = await host.run('(a, ctx) => new Promise((ok) => setTimeout(() => ok(ctx.signal.aborted), 1))', 1);
      assert.equal(late.value, false);
    }),
  );

  test(
    'a listener that throws harms nobody',
    withHost(async (host) => {
      const source = '(a, ctx) => new Promise(() => { ctx.signal.onabort = () => { throw new Error("in abort") } })';
      host.load(source);
      const call = host.open(sha(source), 1);
      await host.ping();
      host.cancel(call);
      assert.equal((await call.answered).outcome, 'cancelled');
      assert.equal((await host.run('() => 1', 1)).value, 1);
    }),
  );
});

describe('settled', () => {
  test(
    'on the fast path it is a flag',
    withHost(async (host) => {
      for (const source of [
        '() => 1',
        'async () => 1',
        '(cb) => cb(null, 1)',
        'async (cb) => { await 1; cb(null, 1) }',
      ]) {
        const x = await host.run(source, 1);
        assert.ok(x.isSettled || source.startsWith('async (cb)'), source);
        await x.settled;
      }
    }),
  );

  test(
    'a callback answers, the promise settles',
    withHost(async (host) => {
      const x = await host.run('async (cb) => { cb(null, 1); await new Promise((ok) => setTimeout(ok, 20)) }', 1);
      assert.equal(await peek(x.settled), pending);
      await x.settled;
    }),
  );
});

describe('bodies and credit', () => {
  test(
    'large values in and out',
    withHost(async (host) => {
      const source = '(input) => input';
      host.load(source);
      const text = '\u00fcx'.repeat(700000);
      const [a, b] = await Promise.all([
        host.open(sha(source), text).answered,
        host.open(sha(source), { big: text }).answered,
      ]);
      assert.equal(a.value, text);
      assert.deepEqual(b.value, { big: text });
      for (const size of [21842, 21843, 21844, 65533, 65534, 65535, 131070, 131071]) {
        const x = await host.open(sha(source), 'y'.repeat(size)).answered;
        assert.equal(x.value.length, size);
        assert.ok(x.isSettled);
      }
    }),
  );

  test(
    'the agent grants what it reads of a value',
    withHost(async (host) => {
      const source = '(input) => input.length';
      host.load(source);
      const call = host.open(sha(source), undefined, { raw: '"' + 'a'.repeat(1000), more: true });
      host.data(call, 'b'.repeat(65000));
      await until(host, () => call.granted > 0);
      assert.equal(call.granted, 65000);
      host.data(call, '"', true);
      assert.equal((await call.answered).value, 66000);
    }),
  );

  test(
    'an answer waits for credit, and nobody else does',
    withHost(async (host) => {
      const source = '(n) => "x".repeat(n)';
      host.load(source);
      const call = host.open(sha(source), 1000000);
      call.autoCredit = false;
      await until(host, () => call.data.length >= 3);
      await host.ping();
      const got = Buffer.concat(call.data).length;
      assert.ok(got <= 262144 && got > 200000, `${got} bytes without credit`);
      assert.equal((await host.open(sha(source), 5).answered).value, 'xxxxx');
      assert.equal(await peek(call.answered), pending);
      call.autoCredit = true;
      call.credit(1000000);
      const x = await call.answered;
      assert.equal(x.value.length, 1000000);
      assert.ok(x.isSettled);
    }),
  );

  test(
    'answers of many streams take turns',
    withHost(async (host) => {
      const source = '(n) => "x".repeat(n)';
      host.load(source);
      const order = [];
      host.on('data', (x) => order.push(x.stream));
      const calls = [host.open(sha(source), 400000), host.open(sha(source), 400000)];
      for (const c of calls) assert.equal((await c.answered).value.length, 400000);
      const firstOfSecond = order.indexOf(calls[1].stream);
      const lastOfFirst = order.lastIndexOf(calls[0].stream);
      assert.ok(firstOfSecond < lastOfFirst, `in turn: ${order}`);
    }),
  );
});

describe('a lost connection', () => {
  test(
    'cancels the calls and comes back',
    withHost(async (host) => {
      const source =
        '(n, ctx) => new Promise((ok) => { ctx.signal.onabort = () => { global.aborted = (global.aborted || 0) + 1; ok(1) }; if (n === 0) ok(global.aborted ?? 0) })';
      await host.load(source);
      for (let i = 1; i <= 3; i++) host.open(sha(source), i);
      await host.ping();
      await host.listen();
      host.socket.destroy();
      await host.welcomed();
      assert.equal(host.hello.reconnects, 1);
      host.exchanges.clear();
      host.next = 1;
      const x = await host.open(sha(source), 0).answered;
      assert.equal(x.value, 3, 'signals were aborted, the code is still loaded');
      await host.listen();
      host.socket.destroy();
      await host.welcomed();
      assert.equal(host.hello.reconnects, 2);
    }),
  );

  test(
    'what its calls left behind says so on the next one',
    withHost(async (host) => {
      const source = '() => { setInterval(() => console.log("still"), 20).unref(); return 1 }';
      await host.run(source, 1);
      await host.listen();
      host.socket.destroy();
      await host.welcomed();
      const before = host.logs.length;
      while (host.logs.length === before) await once(host, 'log');
      const line = host.logs[before];
      assert.equal(line.text, 'still');
      assert.equal(line.former, true, 'nobody knows here what secrets that call had');
      assert.equal(line.step, undefined);
    }),
  );

  test(
    'is retried while nobody listens',
    withHost(async (host) => {
      host.socket.destroy();
      await new Promise((ok) => setTimeout(ok, 700));
      await host.listen();
      await host.welcomed();
      assert.equal((await host.run('() => 1', 1)).value, 1);
    }),
  );

  test(
    'a host that speaks nonsense is hung up on',
    withHost(async (host) => {
      const lost = once(host, 'lost');
      await host.listen();
      host.socket.write(Buffer.alloc(64, 0xff));
      await lost;
      await host.welcomed();
      assert.equal((await host.run('() => 1', 1)).value, 1);
    }),
  );
});

test(
  'the agent works on when tenant code patches what it can reach',
  withHost(async (host) => {
    const patches = [
      'JSON.parse = JSON.stringify = () => { throw new Error("patched") }',
      'Object.prototype.toJSON = function () { return "patched" }; String.prototype.toJSON = Array.prototype.toJSON = Object.prototype.toJSON',
      'Promise.prototype.then = Promise.prototype.catch = Promise.prototype.finally = () => { throw new Error("patched") }',
      'Array.prototype[Symbol.iterator] = Array.prototype.push = Array.prototype.shift = Array.prototype.map = Array.prototype.forEach = () => { throw new Error("patched") }',
      'Map.prototype.get = Map.prototype.set = Map.prototype.delete = Map.prototype.has = Map.prototype.forEach = Map.prototype.keys = () => { throw new Error("patched") }',
      'Map.prototype[Symbol.iterator] = Set.prototype[Symbol.iterator] = () => { throw new Error("patched") }',
      'Buffer.from = Buffer.concat = Buffer.alloc = Buffer.allocUnsafe = Buffer.allocUnsafeSlow = Buffer.byteLength = () => { throw new Error("patched") }',
      'for (const k of ["utf8Write", "utf8Slice", "toString", "write", "subarray", "slice", "copy"]) Buffer.prototype[k] = () => { throw new Error("patched") }',
      'Uint8Array.prototype.__proto__; Object.getPrototypeOf(Uint8Array.prototype).set = Object.getPrototypeOf(Uint8Array.prototype).subarray = () => { throw new Error("patched") }',
      'const E = require("events"); for (const k of ["emit", "on", "once", "addListener", "removeListener"]) E.prototype[k] = () => { throw new Error("patched") }',
      'const S = require("net").Socket.prototype; for (const k of ["write", "_write", "_writev", "_writeGeneric", "end", "destroy", "_read", "read"]) S[k] = () => { throw new Error("patched") }',
      'const st = require("stream"); for (const c of [st.Writable, st.Readable, st.Duplex]) for (const k of ["write", "end", "push", "_write", "cork", "uncork"]) c.prototype[k] = () => { throw new Error("patched") }',
      'Function.prototype.call = Function.prototype.apply = Function.prototype.bind = () => { throw new Error("patched") }',
      'Reflect.apply = Reflect.ownKeys = Reflect.defineProperty = () => { throw new Error("patched") }',
      'String.prototype.split = String.prototype.indexOf = String.prototype.slice = String.prototype.charCodeAt = String.prototype.trim = () => { throw new Error("patched") }',
      'RegExp.prototype.exec = RegExp.prototype.test = RegExp.prototype[Symbol.replace] = () => { throw new Error("patched") }',
      'globalThis.setImmediate = globalThis.setTimeout = globalThis.queueMicrotask = () => { throw new Error("patched") }',
      'process.nextTick = process.hrtime = process.cpuUsage = () => { throw new Error("patched") }; performance.now = Date.now = () => { throw new Error("patched") }',
      'require("async_hooks").AsyncLocalStorage.prototype.run = require("async_hooks").AsyncLocalStorage.prototype.getStore = () => { throw new Error("patched") }',
      'Object.defineProperty = Object.assign = Object.keys = Object.freeze = Object.getPrototypeOf = () => { throw new Error("patched") }',
      'Math.min = Math.max = Math.round = () => { throw new Error("patched") }; Number.isFinite = Array.isArray = () => { throw new Error("patched") }',
      'globalThis.Promise = globalThis.Map = globalThis.JSON = globalThis.Buffer = globalThis.Error = globalThis.String = globalThis.Math = undefined',
      'Error.prepareStackTrace = () => { throw new Error("patched") }; Error.stackTraceLimit = 0',
    ];
    const sources = {
      value: '(input) => input',
      async: 'async (input) => { console.log("line"); return input }',
      error: '() => { throw 1 }',
    };
    const hashes = {};
    for (const [name, source] of Object.entries(sources)) {
      hashes[name] = sha(source);
      await host.load(source);
    }
    // A patch of toJSON changes the tenant's own answers: numbers have none.
    const old = process.versions.node.startsWith('20.'); // its own AsyncLocalStorage and console look these up
    for (const patch of patches) {
      if (old && /^Function\.prototype|^globalThis\.Promise/.test(patch)) continue;
      const x = await host.run(`(input) => { ${patch}; }`, 1);
      assert.ok(['ok', 'error'].includes(x.outcome), patch);
      for (let i = 0; i < 3; i++) {
        const v = await host.open(hashes.value, i).answered;
        assert.deepEqual([v.outcome, v.value], ['ok', i], patch);
        const a = await host.open(hashes.async, i).answered;
        assert.deepEqual([a.outcome, a.value, a.logs.map((l) => l.text)], ['ok', i, ['line']], patch);
        const e = await host.open(hashes.error, i).answered;
        assert.deepEqual([e.outcome, e.error.message], ['error', '1'], patch);
      }
      await host.ping();
    }
    assert.equal((await host.open(hashes.value, undefined, { raw: '[' }).answered).outcome, 'invalid');
    assert.equal((await host.load('() => {')).name, 'LOAD_FAILED');
  }),
);

test(
  'cpu is told where it is worth telling',
  withHost(async (host) => {
    const spin = '() => { const end = Date.now() + 30; while (Date.now() < end); }';
    assert.ok((await host.run(spin, 1)).result.cpu > 5000);
    const x = await host.run(
      '(cb) => { setTimeout(() => { const end = Date.now() + 30; while (Date.now() < end); cb() }, 5) }',
      1,
    );
    assert.ok(x.result.cpu > 5000);
    const idle = await host.run('(cb) => { setTimeout(cb, 200) }', 1);
    assert.ok(idle.result.cpu < 150000, `${idle.result.cpu} µs of CPU in 200 ms of waiting`);
  }),
);

test(
  'frames of the host that come too late are passed over',
  withHost(async (host) => {
    const x = await host.run('() => 1', 1);
    host.send(encode(T.DATA, END, x.stream, undefined, 'late'), encode(T.CANCEL, 0, x.stream, { reason: 'gone' }));
    x.credit(5);
    await host.ping();
    assert.equal((await host.run('() => 2', 1)).value, 2);
  }),
);
