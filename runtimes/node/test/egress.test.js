'use strict';
// The way out: everything that speaks TCP goes through a CONNECT proxy on a unix socket, unchanged; refusals are
// ordinary errors.

const assert = require('node:assert');
const fs = require('node:fs');
const http = require('node:http');
const https = require('node:https');
const net = require('node:net');
const path = require('node:path');
const { test, describe, before, after } = require('node:test');
const { withHost } = require('./host.js');
const { curated } = require('./curated.js');

const PEM = path.join(__dirname, 'secure.test.pem'); // a key and a certificate for secure.test, for these tests only
const servers = {};
const targets = {}; // host:port as the tenant says it → port here

// proxy listens at the host's egress path and logs the destinations asked for.
async function proxy(host) {
  const asked = [];
  const server = net.createServer((socket) => {
    let head = '';
    const onData = (chunk) => {
      head += chunk.toString('latin1');
      if (!head.includes('\r\n\r\n')) return;
      socket.off('data', onData);
      const target = /^CONNECT (\S+) HTTP\/1\.1\r\nHost: \1\r\n\r\n$/.exec(head)?.[1];
      asked.push(target ?? head);
      const port = targets[target];
      if (target === 'slow.test:80') return;
      if (target === 'closes.test:80') return socket.end();
      if (target === 'gateway.test:80') return socket.end('HTTP/1.1 504 Gateway Timeout\r\n\r\n');
      if (target === 'unknown.test:80') {
        return socket.end('HTTP/1.1 502 Bad Gateway\r\nContent-Length: 7\r\nPaddock-Error: egress_dns\r\n\r\nno name');
      }
      if (target === 'split.test:80') {
        const text = 'egress to split.test:80 is not on the list';
        socket.write('HTTP/1.1 403 Forbid');
        return setTimeout(
          () =>
            socket.write(`den\r\nContent-Length: ${text.length}\r\n\r\n${text.slice(0, 10)}`, () =>
              setTimeout(() => socket.write(text.slice(10)), 5),
            ),
          5,
        );
      }
      if (port === undefined) return socket.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n');
      const out = net.connect(port, '127.0.0.1', () => {
        socket.write('HTTP/1.1 200 Connection Established\r\n\r\n');
        socket.pipe(out).pipe(socket);
      });
      out.on('error', () => socket.destroy());
      socket.on('error', () => out.destroy());
    };
    socket.on('data', onData);
    socket.on('error', () => {});
  });
  await new Promise((ok) => server.listen(host.egress, ok));
  return { asked, close: () => server.close() };
}

const listen = (server) => new Promise((ok) => server.listen(0, '127.0.0.1', () => ok(server.address().port)));
const answer = (req, res) => {
  let body = '';
  req
    .on('data', (d) => {
      body += d;
    })
    .on('end', () => res.end(JSON.stringify({ method: req.method, url: req.url, host: req.headers.host, body })));
};

before(async () => {
  const pem = fs.readFileSync(PEM);
  servers.web = http.createServer(answer);
  servers.tls = https.createServer({ key: pem, cert: pem }, answer);
  servers.banner = net.createServer((s) => {
    // speaks first, then echoes
    s.write('220 hello\r\n');
    s.pipe(s);
    s.on('error', () => {});
  });
  targets['web.test:80'] =
    targets['web.test:8080'] =
    targets['[2001:db8::1]:80'] =
    targets['localhost:80'] =
      await listen(servers.web);
  targets['secure.test:443'] = targets['other.test:443'] = await listen(servers.tls);
  targets['mail.test:25'] = await listen(servers.banner);
});
after(() => {
  for (const s of Object.values(servers)) {
    s.close();
    s.closeAllConnections?.();
  }
});

const env = { NODE_EXTRA_CA_CERTS: PEM, PADDOCK_MODULES: curated() };
const withProxy = (run) =>
  withHost(
    async (host) => {
      const p = await proxy(host);
      try {
        await run(host, p, async (body) => {
          const x = await host.run(`async (input, ctx) => { ${body} }`, 1, { via: 'value' });
          return x.outcome === 'ok' ? x.value : { failed: x.error };
        });
      } finally {
        p.close();
      }
    },
    {},
    { env },
  );

const GET = `const get = (lib, url, options = {}) => new Promise((ok, fail) => lib.get(url, options, (res) => { let b = ''; res.on('data', (d) => b += d).on('end', () => ok([res.statusCode, JSON.parse(b)])) }).on('error', fail));`;

describe('through the proxy', () => {
  test(
    'http, https, fetch, net, tls',
    withProxy(async (host, p, run) => {
      assert.deepEqual(await run(`${GET} return await get(require('http'), 'http://web.test:8080/a?b=c')`), [
        200,
        { method: 'GET', url: '/a?b=c', host: 'web.test:8080', body: '' },
      ]);
      assert.deepEqual(
        (await run(`${GET} return await get(require('https'), 'https://secure.test/x')`))[1].host,
        'secure.test',
      );
      assert.deepEqual(
        await run(`const r = await fetch('http://web.test/f', { method: 'POST', body: 'data' }); return r.json()`),
        { method: 'POST', url: '/f', host: 'web.test', body: 'data' },
      );
      assert.deepEqual((await run(`const r = await fetch('https://secure.test/g'); return r.json()`)).url, '/g');
      assert.deepEqual(
        await run(
          `const { get } = await import('node:https'); return new Promise((ok, fail) => get('https://secure.test/esm', (r) => ok(r.statusCode)).on('error', fail))`,
        ),
        200,
      );
      assert.deepEqual(
        await run(
          `const { connect } = await import('node:net'); return new Promise((ok, fail) => { const s = connect(25, 'mail.test'); s.once('data', (d) => { s.destroy(); ok(String(d)) }).on('error', fail) })`,
        ),
        '220 hello\r\n',
      );
      assert.equal(
        await run(
          `const tls = require('tls'); return new Promise((ok, fail) => { const s = tls.connect({ host: 'secure.test', port: 443 }, () => { ok(s.authorized && s.servername); s.destroy() }); s.on('error', fail) })`,
        ),
        'secure.test',
      );
      assert.equal(
        await run(
          `const tls = require('tls'); return new Promise((ok, fail) => { const s = tls.connect(443, 'secure.test', {}, () => { ok(s.authorized); s.destroy() }); s.on('error', fail) })`,
        ),
        true,
      );
      assert.equal(
        (
          await run(
            `const tls = require('tls'); return new Promise((ok, fail) => { const s = tls.connect(443, 'other.test', () => ok('no check')); s.on('error', fail) })`,
          )
        ).failed.code,
        'ERR_TLS_CERT_ALTNAME_INVALID',
      );
      assert.equal((await run(`const r = await fetch('http://[2001:db8::1]/six'); return r.json()`)).url, '/six');
      assert.deepEqual([...new Set(p.asked)].sort(), [
        '[2001:db8::1]:80',
        'mail.test:25',
        'other.test:443',
        'secure.test:443',
        'web.test:80',
        'web.test:8080',
      ]);
    }),
  );

  test(
    'the modules people use',
    withProxy(async (host, p, run) => {
      assert.equal((await run(`return (await require('axios').get('https://secure.test/axios')).data`)).url, '/axios');
      assert.equal(
        (await run(`return (await require('axios').post('http://web.test/axios', { a: 1 })).data`)).body,
        '{"a":1}',
      );
      assert.equal(
        (await run(`return JSON.parse(await require('request-promise')('https://secure.test/rp'))`)).url,
        '/rp',
      );
      assert.equal(
        (
          await run(
            `return new Promise((ok, fail) => require('request')({ url: 'http://web.test/r', json: true }, (e, r, b) => e ? fail(e) : ok(b)))`,
          )
        ).url,
        '/r',
      );
      assert.equal((await run(`return (await require('node-fetch')('https://secure.test/nf')).json()`)).url, '/nf');
    }),
  );

  test(
    'sockets behave as sockets do',
    withProxy(async (host, p, run) => {
      assert.deepEqual(
        await run(`return new Promise((ok, fail) => {
      const seen = [];
      const s = require('net').connect({ host: 'mail.test', port: 25 });
      seen.push(s.connecting);
      s.setNoDelay(true); s.setKeepAlive(true); s.ref();
      s.write('early ');
      for (const e of ['lookup', 'connect', 'ready', 'end', 'close']) s.on(e, () => seen.push(e));
      s.on('connect', () => { seen.push(s.connecting, s.remotePort); s.write('late') });
      let b = ''; s.on('data', (d) => { b += d; if (b.endsWith('late')) s.end() });
      s.on('close', (hadError) => ok([seen, b, hadError])); s.on('error', fail);
    })`),
        [[true, 'connect', false, 25, 'ready', 'end', 'close'], '220 hello\r\nearly late', false],
      );
      assert.equal(
        await run(
          `return new Promise((ok) => { const s = require('net').connect(80, 'slow.test'); s.setTimeout(20); s.on('timeout', () => { s.destroy(); }); s.on('close', () => ok('closed')) })`,
        ),
        'closed',
      );
      assert.equal(
        (
          await run(
            `const a = new AbortController(); setTimeout(() => a.abort(), 10); await fetch('http://slow.test/', { signal: a.signal })`,
          )
        ).failed.name,
        'AbortError',
      );
      assert.equal(
        await run(
          `const http = require('http'); const agent = new http.Agent({ keepAlive: true }); const one = () => new Promise((ok, fail) => http.get('http://web.test/', { agent }, (r) => { r.resume().on('end', () => setImmediate(ok, r.socket)) }).on('error', fail)); return (await one()) === (await one())`,
        ),
        true,
      );
      assert.equal(
        await run(
          `const net = require('net'); const path = '/tmp/pk-' + process.pid + '.sock'; return new Promise((ok, fail) => { const srv = net.createServer((s) => s.end('unix')).listen(path, () => net.connect(path).on('data', (d) => { srv.close(); ok(String(d)) }).on('error', fail)) })`,
        ),
        'unix',
      );
      assert.match(
        (await run(`await new Promise((ok, fail) => require('net').connect(99999, 'x.test').on('error', fail))`)).failed
          .code,
        /ERR_SOCKET_BAD_PORT/,
      );
    }),
  );
});

describe('refusals', () => {
  test(
    'are errors with a code and the reason',
    withProxy(async (host, p, run) => {
      const net = (host, port = 80) =>
        `await new Promise((ok, fail) => require('net').connect(${port}, '${host}', ok).on('error', fail))`;
      const cases = [
        [net('evil.test'), 'EACCES', 'egress to evil.test:80 is not allowed for this tenant'],
        [net('split.test'), 'EACCES', 'egress to split.test:80 is not on the list'],
        [net('unknown.test'), 'ENOTFOUND', 'no name'],
        [net('gateway.test'), 'ETIMEDOUT', /504/],
        [net('closes.test'), 'ECONNRESET', /closed/],
        [net('169.254.169.254'), 'EACCES', /169\.254\.169\.254:80/],
      ];
      for (const [body, code, message] of cases) {
        const { failed } = await run(body);
        assert.equal(failed.code, code, body);
        assert.match(failed.message, typeof message === 'string' ? new RegExp(`^${message}$`) : message);
      }
      assert.match(
        (await run(`${GET} await get(require('https'), 'https://evil.test/')`)).failed.message,
        /egress to evil.test:443 is not allowed/,
      );
      const viaFetch = (await run(`await fetch('https://evil.test/')`)).failed;
      assert.equal(viaFetch.message, 'fetch failed');
      assert.match(
        viaFetch.stack,
        /egress to evil.test:443 is not allowed for this tenant/,
        'the reason is in the stack',
      );
      assert.match(
        (await run(`await require('axios').get('http://evil.test/')`)).failed.message,
        /egress to evil.test:80/,
      );
      assert.match(await run(`try { await fetch('http://evil.test') } catch (e) { return e.cause.code }`), /EACCES/);
    }),
  );

  test(
    'no proxy at all',
    withHost(async (host) => {
      const x = await host.run(
        `async () => { await new Promise((ok, fail) => require('net').connect(80, 'a.test').on('error', fail)) }`,
        1,
      );
      assert.equal(x.outcome, 'error');
      assert.match(x.error.message, /no way out of this sandbox \(ENOENT\)/);
      const y = await host.run('async () => (await fetch("http://a.test")).status', 1);
      assert.equal(y.error.message, 'fetch failed');
    }),
  );

  test(
    'names are not resolved inside',
    withProxy(async (host, p, run) => {
      for (const body of [
        `await require('dns').promises.lookup('a.test')`,
        `await new Promise((ok, fail) => require('dns').lookup('a.test', (e) => fail(e)))`,
        `await require('dns/promises').resolve4('a.test')`,
        `await new Promise((ok, fail) => new (require('dns').Resolver)().resolve('a.test', fail))`,
        `const { lookup } = await import('node:dns'); await new Promise((ok, fail) => lookup('a.test', {}, fail))`,
      ]) {
        const { failed } = await run(body);
        assert.match(failed.message, /is not available in the sandbox/, body);
        assert.equal(failed.code, 'ENOTIMP');
      }
      assert.deepEqual(await run(`return require('dns').promises.lookup('127.0.0.1')`), {
        address: '127.0.0.1',
        family: 4,
      });
      assert.deepEqual(
        await run(
          `return [require('os').networkInterfaces(), typeof require('os').userInfo().username, typeof process.binding]`,
        ),
        [{}, 'string', 'undefined'],
      );
    }),
  );
});

describe('elsewhere in the sandbox', () => {
  test(
    'workers and children have the same way out',
    withProxy(async (host, p, run) => {
      const code = `require('http').get('http://web.test/w', (r) => { r.resume(); OUT(r.statusCode) }).on('error', (e) => OUT(e.message))`;
      assert.equal(
        await run(
          `const { Worker } = require('worker_threads'); return new Promise((ok, fail) => new Worker(${JSON.stringify(code.replaceAll('OUT', 'require("worker_threads").parentPort.postMessage'))}, { eval: true }).on('message', ok).on('error', fail))`,
        ),
        200,
      );
      assert.equal(
        await run(
          `return new Promise((ok) => require('child_process').execFile(process.execPath, ['-e', ${JSON.stringify(code.replaceAll('OUT', 'console.log'))}], (e, out) => ok(out.trim())))`,
        ),
        '200',
      );
      assert.equal(
        await run(
          `const { Worker } = require('worker_threads'); return new Promise((ok) => new Worker('process.exit(3)', { eval: true }).on('exit', ok))`,
        ),
        3,
      );
    }),
  );
});
