'use strict';
// HTTP-shaped functions: real request and response objects, streaming both ways, frameworks, and functions that are not
// HTTP-shaped behind an HTTP request.

const assert = require('node:assert');
const { test, describe } = require('node:test');
const { withHost, until, sha } = require('./host.js');
const { curated } = require('./curated.js');

const request = (method, url, headers = []) => ({ via: 'http', http: { method, url, headers } });
const header = (x, name) => x.head.headers.filter(([n]) => n.toLowerCase() === name).map(([, v]) => v);
const peekable = (promise) => Promise.race([promise.then(() => true), new Promise((ok) => setTimeout(ok, 30, false))]);

describe('request', () => {
  test(
    'what the code sees',
    withHost(async (host) => {
      const source = `(ctx, req, res) => {
      const parts = [];
      req.on('data', (d) => parts.push(d)).on('end', () => res.end(JSON.stringify({
        method: req.method, url: req.url, headers: req.headers, raw: req.rawHeaders, version: req.httpVersion, body: Buffer.concat(parts).toString(),
        complete: req.complete, query: ctx.query, ctxHeaders: ctx.headers, ctxBody: typeof ctx.body, data: ctx.data,
      })));
    }`;
      const x = await host.run(source, undefined, {
        ...request('PUT', '/a/b?x=1&x=2&key=k&webtask_no_cache=1', [
          ['Content-Type', 'text/plain'],
          ['X-Twice', '1'],
          ['x-twice', '2'],
          ['Cookie', 'a=1'],
          ['Cookie', 'b=2'],
        ]),
        raw: 'the body',
        secrets: { s: 't' },
      });
      assert.equal(x.outcome, 'ok');
      assert.deepEqual(x.head.status, 200);
      assert.deepEqual(x.value, {
        method: 'PUT',
        url: '/a/b?x=1&x=2&key=k&webtask_no_cache=1',
        version: '1.1',
        body: 'the body',
        complete: true,
        headers: { 'content-type': 'text/plain', 'x-twice': '1, 2', cookie: 'a=1; b=2' },
        raw: ['Content-Type', 'text/plain', 'X-Twice', '1', 'x-twice', '2', 'Cookie', 'a=1', 'Cookie', 'b=2'],
        query: { x: ['1', '2'] },
        ctxHeaders: { 'content-type': 'text/plain', 'x-twice': '1, 2', cookie: 'a=1; b=2' },
        ctxBody: 'undefined',
        data: { x: ['1', '2'], s: 't' },
      });
      assert.ok(x.isSettled);
    }),
  );

  test(
    'a body is granted as the code reads',
    withHost(async (host) => {
      const source = `(ctx, req, res) => {
      let n = 0;
      console.log('ready');
      setTimeout(async () => { for await (const d of req) n += d.length; res.end(String(n)) }, 100);
    }`;
      host.load(source);
      const call = host.open(sha(source), undefined, { ...request('POST', '/'), raw: 'x'.repeat(60000), more: true });
      for (let i = 0; i < 4; i++) host.data(call, 'y'.repeat(60000));
      await until(host, () => call.logs.length > 0);
      assert.ok(call.granted < 180000, `granted ${call.granted} before anybody read`);
      await until(host, () => call.granted >= 240000, 'the grant');
      host.data(call, 'end', true);
      const x = await call.answered;
      assert.equal(x.text, '300003');
    }),
  );

  test(
    'a body that nobody reads',
    withHost(async (host) => {
      const source = '(ctx, req, res) => { res.end("early") }';
      host.load(source);
      const call = host.open(sha(source), undefined, { ...request('POST', '/'), raw: 'x', more: true });
      const x = await call.answered;
      assert.deepEqual([x.text, x.isSettled], ['early', true]);
      host.data(call, 'y'.repeat(1000), true);
      await host.ping();
    }),
  );
});

describe('response', () => {
  test(
    'heads',
    withHost(async (host) => {
      const cases = [
        ['res.end()', 200, []],
        ['res.statusCode = 404; res.setHeader("X-A", "1"); res.end("no")', 404, [['X-A', '1']]],
        [
          'res.writeHead(201, { "X-B": "2", "set-cookie": ["a=1", "b=2"] }); res.end()',
          201,
          [
            ['X-B', '2'],
            ['set-cookie', 'a=1'],
            ['set-cookie', 'b=2'],
          ],
        ],
        [
          'res.writeHead(302, "Moved", ["Location", "/x", "X-C", "3"]); res.end()',
          302,
          [
            ['Location', '/x'],
            ['X-C', '3'],
          ],
        ],
        ['res.setHeader("x-d", 4); res.flushHeaders(); res.end("later")', 200, [['x-d', '4']]],
        ['res.statusCode = 204; res.end()', 204, []],
        [
          'res.setHeader("Connection", "close"); res.setHeader("Transfer-Encoding", "chunked"); res.setHeader("Keep-Alive", "x"); res.end("c")',
          200,
          [],
        ],
        ['res.writeContinue(); res.writeProcessing(); res.writeEarlyHints({ link: "</a>" }); res.end("d")', 200, []],
      ];
      for (const [body, status, headers] of cases) {
        const x = await host.run(`(ctx, req, res) => { ${body} }`, 1);
        assert.equal(x.outcome, 'ok', `${body}: ${x.error?.message}`);
        assert.equal(x.head.status, status, body);
        assert.deepEqual(
          x.head.headers.filter(([n]) => n !== 'Content-Length'),
          headers,
          body,
        );
        assert.ok(!/\r\n/.test(x.text), body);
      }
      const text = async (body) => (await host.run(`(ctx, req, res) => { ${body} }`, 1)).text;
      assert.equal(
        await text('res.write("a"); res.write(Buffer.from("b")); res.write("63", "hex"); res.end("d")'),
        'abcd',
      );
      assert.equal(await text('require("stream").Readable.from(["p", "i", "pe"]).pipe(res)'), 'pipe');
      assert.equal(
        await text('res.setHeader("Transfer-Encoding", "chunked"); res.write("no"); res.end(" chunks")'),
        'no chunks',
      );
      assert.equal(await text('req.pipe(res)'), '1');
    }),
  );

  test(
    'what cannot be sent',
    withHost(async (host) => {
      for (const [body, message] of [
        ['res.writeHead(101); res.end()', /status 101/],
        ['res.statusCode = 999; res.end()', /status 999/],
        ['res.statusCode = 9; res.end()', /Invalid status code/],
        ['res.setHeader("X", "a\\r\\nSet-Cookie: b"); res.end()', /Invalid character/],
        ['res.setHeader("X", "y".repeat(70000)); res.end()', /larger than 64 KiB/],
        ['throw new Error("sync")', /sync/],
        ['res.destroy()', /closed before/],
        ['setTimeout(() => { throw new Error("timer") }, 1)', /timer/],
      ]) {
        const x = await host.run(`(ctx, req, res) => { ${body} }`, 1);
        assert.deepEqual([x.outcome, x.head], ['error', null], body);
        assert.match(x.error.message, message);
        await x.settled;
      }
      const x = await host.run('async (ctx, req, res) => { throw new Error("rejected") }', 1);
      assert.deepEqual([x.outcome, x.error.message, x.isSettled], ['error', 'rejected', true]);
    }),
  );

  test(
    'failure after the head cuts the response',
    withHost(async (host) => {
      const x = await host.run(
        '(ctx, req, res) => { res.write("half"); setTimeout(() => { throw new Error("cut " + "x".repeat(10000)) }, 5) }',
        1,
      );
      assert.deepEqual([x.outcome, x.head.status, x.text], ['error', 200, 'half']);
      assert.match(x.error.message, /^cut xxx/);
      await x.settled;
    }),
  );

  test(
    'streams under credit, and the code feels it',
    withHost(async (host) => {
      const source = `async (ctx, req, res) => {
      for (let i = 0; i < 40; i++) if (!res.write('x'.repeat(50000))) { await new Promise((ok) => res.once('drain', ok)); console.log('drained') }
      res.end();
    }`;
      host.load(source);
      const call = host.open(sha(source), 1);
      call.autoCredit = false;
      await call.started;
      await until(host, () => Buffer.concat(call.data).length > 200000);
      await host.ping();
      assert.ok(Buffer.concat(call.data).length <= 262144);
      const drained = call.logs.length;
      assert.ok(drained < 20, 'the code waits');
      call.autoCredit = true;
      call.credit(262144);
      const x = await call.answered;
      assert.equal(x.text.length, 2000000);
      await x.settled;
      assert.ok(x.logs.length > drained);
    }),
  );

  test(
    'a stalled body holds up neither an error nor a cancel',
    withHost(async (host) => {
      for (const end of ['setTimeout(() => { throw new Error("x".repeat(20000)) }, 20)', '']) {
        const source = `(ctx, req, res) => { res.write('x'.repeat(1000000)); ctx.signal.onabort = () => console.log('aborted'); res.on('close', () => console.log('closed')); ${end} }`;
        host.load(source);
        const call = host.open(sha(source), 1);
        call.autoCredit = false;
        await call.started;
        if (end === '') host.cancel(call);
        const x = await call.answered;
        assert.equal(x.outcome, end === '' ? 'cancelled' : 'error');
        await x.settled;
        if (end === '') assert.ok(x.logs.some((l) => l.text === 'aborted'));
      }
    }),
  );

  test(
    'settled: response closed and promise settled',
    withHost(async (host) => {
      const x = await host.run(
        'async (ctx, req, res) => { res.end("done"); await new Promise((ok) => setTimeout(ok, 60)); console.log("over") }',
        1,
      );
      assert.equal(x.text, 'done');
      assert.equal(await peekable(x.settled), false);
      await x.settled;
      assert.equal(x.logs[0].text, 'over');
      const y = await host.run(
        '(ctx, req, res) => { res.on("finish", () => console.log("finish")); res.on("close", () => console.log("close")); res.end() }',
        1,
      );
      await y.settled;
      await until(host, () => host.logs.concat(y.logs).length >= 2);
    }),
  );
});

describe('by value and by request', () => {
  test(
    'an HTTP-shaped function called with a value',
    withHost(async (host) => {
      const x = await host.run(
        '(ctx, req, res) => { let b = ""; req.on("data", (d) => b += d).on("end", () => res.end([req.method, req.url, req.headers["content-type"], b, JSON.stringify(ctx.body)].join(" "))) }',
        { a: 1 },
      );
      assert.equal(x.text, 'POST / application/json {"a":1} {"a":1}');
    }),
  );

  test(
    'other functions called by a request',
    withHost(async (host) => {
      const source = '(input, ctx) => [input, ctx.query.q ?? null, ctx.headers.h ?? null]';
      host.load(source);
      const call = async (type, raw, url = '/') =>
        await host.open(sha(source), undefined, {
          ...request(
            'POST',
            url,
            type
              ? [
                  ['Content-Type', type],
                  ['H', 'h'],
                ]
              : [],
          ),
          raw,
        }).answered;
      assert.deepEqual((await call('application/json; charset=utf-8', '{"a":1}', '/x?q=2')).value, [
        { a: 1 },
        '2',
        'h',
      ]);
      assert.deepEqual((await call('application/problem+json', '[1]')).value, [[1], null, 'h']);
      assert.deepEqual((await call('application/x-www-form-urlencoded', 'a=1&b=%20&a=2')).value, [
        { a: ['1', '2'], b: ' ' },
        null,
        'h',
      ]);
      assert.deepEqual((await call('text/plain', 'words')).value, ['words', null, 'h']);
      assert.deepEqual((await call(null, '')).value, [null, null, null]);
      const bad = await call('application/json', '{');
      assert.deepEqual([bad.outcome, bad.isSettled], ['invalid', true]);
      const long = await call('text/plain', 'z'.repeat(400000));
      assert.equal(long.value[0].length, 400000);
      const cb = await host.run('(ctx, cb) => cb(null, ctx.data)', undefined, {
        ...request('POST', '/?a=query', [['Content-Type', 'application/json']]),
        raw: '{"a":"body","b":2}',
        secrets: { c: 3 },
      });
      assert.deepEqual(cb.value, { a: 'query', b: 2, c: 3 });
    }),
  );
});

describe('frameworks', () => {
  const modules = { env: { PADDOCK_MODULES: curated() } };

  test(
    'express, exported and through webtask-tools',
    withHost(
      async (host) => {
        const app = `const express = require('express'); const app = express(); app.use(express.json());
      app.get('/hello/:name', (req, res) => res.set('x-q', req.query.q).send('hello ' + req.params.name));
      app.post('/json', (req, res) => res.status(201).json({ got: req.body }));
      app.get('/fail', () => { throw new Error('boom') });
      app.get('/async', async (req, res) => { await null; res.send('async') });`;
        for (const end of [
          'module.exports = app;',
          'module.exports = require("webtask-tools").fromExpress(app);',
          'module.exports = (ctx, req, res) => app(req, res);',
        ]) {
          const get = async (method, url, raw) =>
            await host.run(app + end, undefined, {
              ...request(
                method,
                url,
                raw
                  ? [
                      ['content-type', 'application/json'],
                      ['content-length', `${raw.length}`],
                    ]
                  : [],
              ),
              raw: raw ?? '',
              tenant: 'acme',
            });
          const hello = await get('GET', '/hello/bob?q=7');
          assert.deepEqual(
            [hello.outcome, hello.head?.status, hello.text, header(hello, 'x-q')],
            ['ok', 200, 'hello bob', ['7']],
            `${end} ${hello.error?.message}`,
          );
          const json = await get('POST', '/json', '{"a":[1]}');
          assert.deepEqual([json.head.status, json.value], [201, { got: { a: [1] } }]);
          assert.deepEqual((await get('GET', '/none')).head.status, 404);
          assert.deepEqual((await get('GET', '/fail')).head.status, 500);
          assert.equal((await get('GET', '/async')).text, 'async');
          assert.equal((await get('HEAD', '/hello/bob')).text, '');
        }
      },
      {},
      modules,
    ),
  );

  test(
    'koa',
    withHost(
      async (host) => {
        const app = `const Koa = require('koa'); const app = new Koa();
      app.use(async (ctx) => { if (ctx.path === '/fail') throw new Error('x'); ctx.set('x-k', '1'); ctx.body = { path: ctx.path, q: ctx.query.q } });`;
        for (const end of [
          'module.exports = app',
          'const cb = app.callback(); module.exports = (ctx, req, res) => cb(req, res)',
        ]) {
          const x = await host.run(app + end, undefined, request('GET', '/p?q=1'));
          assert.deepEqual(
            [x.outcome, x.head?.status, x.value, header(x, 'x-k')],
            ['ok', 200, { path: '/p', q: '1' }, ['1']],
          );
          assert.equal((await host.run(app + end, undefined, request('GET', '/fail'))).head.status, 500);
        }
      },
      {},
      modules,
    ),
  );
});
