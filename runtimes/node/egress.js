'use strict';
// Preload (--require) for every node process and worker in the sandbox: there is no network in here, only the egress
// socket, an HTTP CONNECT proxy. A TCP connect of net.Socket becomes a tunnel through it, so that net, tls, http,
// https, fetch and the modules on top work unchanged. Names are resolved by the proxy. Whether a destination is allowed
// is the proxy's business alone.

const dns = require('node:dns');
const net = require('node:net');
const os = require('node:os');
const { syncBuiltinESMExports } = require('node:module');
const tls = require('node:tls');

const INSTALLED = Symbol.for('paddock.egress');
const PATH = process.env.PADDOCK_EGRESS || '/run/paddock/egress';
const MAX_ANSWER = 16384;

const connectNatively = net.Socket.prototype.connect;
const normalizeArgs = net._normalizeArgs;
const connectTls = tls.connect;
const { Socket } = net;

// reinitialize gives a socket another handle: the way Node itself retries an address.
const reinitialize = Object.getOwnPropertySymbols(Socket.prototype).find(
  (s) => s.description === 'kReinitializeHandle',
);

// What code expects to find in an error's code: by the proxy's reason, else by its status.
const REASONS = {
  egress_dns: 'ENOTFOUND',
  egress_refused: 'ECONNREFUSED',
  egress_timeout: 'ETIMEDOUT',
  egress_unreachable: 'EHOSTUNREACH',
};
const STATUSES = { 400: 'EINVAL', 403: 'EACCES', 407: 'EACCES', 429: 'EAGAIN', 503: 'EAGAIN', 504: 'ETIMEDOUT' };

// parse reads the head of an answer to CONNECT.
function parse(head) {
  return {
    status: +(/^HTTP\/1\.\d (\d{3})/.exec(head)?.[1] ?? 0),
    size: +(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? NaN),
    reason: /\r\npaddock-error: *(\w+)/i.exec(head)?.[1] ?? '',
  };
}

function failure(code, message, host, port) {
  const error = new Error(message);
  return Object.assign(error, { code, syscall: 'connect', host, port });
}

// bracket writes an IPv6 address as an authority wants it.
const bracket = (host) => (host.includes(':') && !host.startsWith('[') ? `[${host}]` : host);

// Tunnel asks the proxy for host:port; opened(handle, early) gets the connected handle and the bytes that came behind
// the answer, failed(error) what went wrong. Exactly one of them is called, unless close() was.
class Tunnel {
  constructor(host, port, opened, failed) {
    this.host = host;
    this.port = port;
    this.opened = opened;
    this.failed = failed;
    this.answer = Buffer.alloc(0);
    this.over = false;
    const inner = new Socket();
    this.inner = inner;
    inner.on('error', (e) =>
      this.fail(
        failure(e.code, `egress to ${host}:${port}: there is no way out of this sandbox (${e.code})`, host, port),
      ),
    );
    inner.on('data', (chunk) => this.read(chunk));
    inner.on('end', () => this.ended());
    const target = `${bracket(host)}:${port}`;
    connectNatively.call(inner, { path: PATH }, () =>
      inner.write(`CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\n\r\n`),
    );
  }

  read(chunk) {
    if (this.over) return;
    this.answer = Buffer.concat([this.answer, chunk]);
    const end = this.answer.indexOf('\r\n\r\n');
    if (end < 0) {
      if (this.answer.length > MAX_ANSWER)
        this.fail(failure('EPROTO', "egress: the proxy's answer is too long", this.host, this.port));
      return;
    }
    const head = parse(this.answer.toString('latin1', 0, end));
    if (head.status >= 200 && head.status < 300) return this.open(this.answer.subarray(end + 4));
    if (this.answer.length - end - 4 >= Math.min(head.size, MAX_ANSWER)) this.refuse(head, end + 4);
  }

  // ended: the proxy closed. A refusal without a length ends like that.
  ended() {
    const end = this.answer.indexOf('\r\n\r\n');
    if (end >= 0) return this.refuse(parse(this.answer.toString('latin1', 0, end)), end + 4);
    this.fail(
      failure(
        'ECONNRESET',
        `egress to ${this.host}:${this.port}: the proxy closed the connection`,
        this.host,
        this.port,
      ),
    );
  }

  refuse({ status, reason }, at) {
    const text = this.answer.toString('utf8', at, at + MAX_ANSWER).trim();
    const { host, port } = this;
    const message =
      text !== ''
        ? text
        : status === 403
          ? `egress to ${host}:${port} is not allowed for this tenant`
          : `egress to ${host}:${port} failed (${status})`;
    this.fail(failure(REASONS[reason] ?? STATUSES[status] ?? 'ECONNREFUSED', message, host, port));
  }

  open(early) {
    if (this.over) return;
    this.over = true;
    const { inner } = this;
    inner.removeAllListeners();
    inner.on('error', () => {});
    const handle = inner._handle;
    handle.readStop();
    handle.reading = false;
    inner._handle = null; // the handle has a new owner from here on
    inner.destroy();
    this.opened(handle, early);
  }

  fail(error) {
    if (this.over) return;
    this.over = true;
    this.inner.destroy();
    this.failed(error);
  }

  close() {
    this.over = true;
    this.inner.destroy();
  }
}

// adopt makes a tunnel's handle the socket's, as if the socket had connected by itself.
function adopt(socket, handle, early, host, port) {
  socket[reinitialize](handle);
  socket.connecting = false;
  socket._sockname = null;
  socket._peername = net.isIP(host)
    ? { address: host, port, family: `IPv${net.isIP(host)}` }
    : { address: undefined, port, family: 'IPv4' };
  if (socket.readable === undefined) socket.readable = true;
  if (early.length > 0) socket.push(Buffer.from(early));
  socket.emit('connect');
  socket.emit('ready');
  if (!socket.destroyed && !socket.isPaused()) socket.read(0);
}

function connect(...args) {
  const normalized =
    Array.isArray(args[0]) && args[0].length <= 2 && typeof args[0][0] === 'object' ? args[0] : normalizeArgs(args);
  const [options, callback] = normalized;
  if (options.path) return connectNatively.apply(this, args);
  const port = +options.port;
  if (options.port === undefined || !Number.isInteger(port) || port < 0 || port > 65535)
    return connectNatively.apply(this, args); // its own errors
  const host = options.host || 'localhost';
  if (this.write !== Socket.prototype.write && this.write === undefined) this.write = Socket.prototype.write;
  if (this.destroyed) {
    // As Node does for a socket that is used again.
    this._handle = null;
    this._undestroy();
    this._peername = null;
    this._sockname = null;
  }
  if (callback !== null && callback !== undefined) this.once('connect', callback);
  if (this._handle) {
    this._handle.close?.();
    this._handle = null;
  }
  this.connecting = true;
  this._host = host;
  this._unrefTimer?.();
  const tunnel = new Tunnel(
    host,
    port,
    (handle, early) => {
      this.removeListener('close', closed);
      if (this.destroyed) return handle.close();
      adopt(this, handle, early, host, port);
    },
    (error) => {
      this.removeListener('close', closed);
      this.destroy(error);
    },
  );
  const closed = () => tunnel.close();
  this.once('close', closed);
  return this;
}

// connectTlsThroughEgress runs TLS over a plain socket of ours: a TLS socket of its own would want a TCP handle.
function connectTlsThroughEgress(...args) {
  const [options, callback] = normalizeTls(args);
  if (options.socket || options.path) return connectTls.apply(tls, args);
  const host = options.host || 'localhost';
  const raw = new Socket({ signal: options.signal });
  if (options.timeout) raw.setTimeout(options.timeout);
  connect.call(raw, { host, port: options.port });
  const servername = options.servername ?? (net.isIP(host) === 0 ? host : undefined);
  const socket = connectTls.call(
    tls,
    { ...options, host, socket: raw, ...(servername ? { servername } : {}) },
    callback,
  );
  raw.once('error', (error) => socket.destroy(error));
  return socket;
}

// normalizeTls reads (options), (port, host, options) and (port, options), each with a callback.
function normalizeTls(args) {
  const normalized = normalizeArgs(args);
  const options = { ...normalized[0] };
  for (const extra of [args[1], args[2]])
    if (extra !== null && typeof extra === 'object') Object.assign(options, extra);
  return [options, normalized[1] ?? undefined];
}

// refuseNames makes explicit look-ups fail with a text that says why; addresses need none.
function refuseNames() {
  const text = (name) =>
    `dns: ${name} is not available in the sandbox: connect to a name directly, it is resolved outside`;
  const refusal = (name, host) =>
    Object.assign(new Error(text(name)), { code: dns.NOTIMP ?? 'ENOTIMP', syscall: name, hostname: host });
  const lookup = dns.lookup;
  const lookupPromise = dns.promises.lookup;
  for (const [target, promised] of [
    [dns, false],
    [dns.promises, true],
    [dns.Resolver.prototype, false],
    [dns.promises.Resolver.prototype, true],
  ]) {
    for (const name of Object.getOwnPropertyNames(target)) {
      if (!/^(resolve|reverse|lookup)/.test(name) || typeof target[name] !== 'function') continue;
      const native = name === 'lookup' ? (promised ? lookupPromise : lookup) : null;
      target[name] = promised ? promisedRefusal(name, native) : calledRefusal(name, native);
    }
  }
  function promisedRefusal(name, native) {
    return (host, ...rest) =>
      native !== null && net.isIP(host) ? native(host, ...rest) : Promise.reject(refusal(name, host));
  }
  function calledRefusal(name, native) {
    return (host, ...rest) => {
      if (native !== null && (net.isIP(host) || !host)) return native(host, ...rest);
      const done = rest.at(-1);
      if (typeof done !== 'function') throw refusal(name, host);
      process.nextTick(done, refusal(name, host));
      return {};
    };
  }
}

// stubHost answers what the sandbox's system calls would not.
function stubHost() {
  os.networkInterfaces = () => ({});
  const user = os.userInfo;
  os.userInfo = (options) => {
    try {
      return user(options);
    } catch {
      const text = (s) => (options?.encoding === 'buffer' ? Buffer.from(s) : s);
      return {
        uid: process.getuid(),
        gid: process.getgid(),
        username: text('paddock'),
        homedir: text('/tmp'),
        shell: null,
      };
    }
  };
}

if (!globalThis[INSTALLED]) {
  Object.defineProperty(globalThis, INSTALLED, { value: true });
  net.Socket.prototype.connect = connect;
  tls.connect = connectTlsThroughEgress;
  refuseNames();
  stubHost();
  delete process.binding;
  syncBuiltinESMExports();
}
