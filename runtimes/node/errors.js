'use strict';
// Describes what tenant code threw as the text of a JSON object for the link, bounded, whatever it is: an Error, a
// string, a Proxy whose getters throw. Only frames of the tenant's code and of modules are left in a stack.

const P = require('./primordials.js');
const { translate } = require('./sourcemap.js');

const MAX = P.freeze({ name: 256, message: 8192, stack: 16384, code: 256, excerpt: 2048 });
const { jsonStringify: quote, stringSlice, hasOwn, regExpExec } = P;

// AgentError is an error that the agent itself reports in place of the tenant's.
class AgentError extends Error {
  constructor(name, message, code) {
    super(message);
    P.defineProperty(this, 'name', { value: name, configurable: true, writable: true });
    if (code !== undefined) this.code = code;
  }
}

// serializeError is what a value that is no JSON fails with.
function serializeError(e) {
  const message = isObject(e) ? get(e, 'message') : undefined;
  const name = isObject(e) ? get(e, 'name') : undefined;
  const text = typeof message === 'string' ? message : plain(e);
  return new AgentError(
    typeof name === 'string' ? name : 'TypeError',
    `The answer cannot be serialized as JSON: ${text}`,
    'ERR_SERIALIZE',
  );
}

const denials = P.arm(new WeakSet(), P.describe(WeakSet.prototype));

// UnauthorizedError is how a rule denies access. Its instances are known by themselves, whatever is done to their names or
// prototypes: a refusal must be told from a failure.
class UnauthorizedError extends Error {
  constructor(message) {
    super(message);
    P.defineProperty(this, 'name', { value: 'UnauthorizedError', writable: true, enumerable: true, configurable: true });
    denials.add(this);
  }
}
P.freeze(UnauthorizedError); // what it is an instance of, and what it extends; its prototype may be extended

const { prototype: denialPrototype } = UnauthorizedError;

// accessDenied is what an action that denies access fails with.
function accessDenied(reason) {
  const error = new AgentError('AccessDenied', reason);
  denials.add(error);
  return error;
}

// isDenial says whether what was thrown denies access: an UnauthorizedError, of this class or of one derived from it, or of
// that name.
function isDenial(thing) {
  if (!isObject(thing)) return false;
  if (denials.has(thing) || get(thing, 'name') === 'UnauthorizedError') return true;
  if (get(get(thing, 'constructor') ?? null, 'name') === 'UnauthorizedError') return true;
  try {
    let p = P.getPrototypeOf(thing);
    for (let depth = 0; p !== null && depth < 64; depth++) {
      if (p === denialPrototype) return true;
      p = P.getPrototypeOf(p);
    }
  } catch {
    // a Proxy that does not tell
  }
  return false;
}

// get reads a property of a thing that may fight back.
function get(thing, key) {
  try {
    return thing[key];
  } catch {
    return undefined;
  }
}

const isObject = (thing) => (typeof thing === 'object' && thing !== null) || typeof thing === 'function';

// clip bounds text by its UTF-8 bytes, without cutting a pair in two.
function clip(text, most) {
  if (text.length * 3 <= most || P.byteLength(text) <= most) return text;
  let n = (most / 3) | 0; // at worst; then let it grow while it fits
  for (let step = n; step >= 1; step >>= 1) {
    while (n + step <= text.length && P.byteLength(stringSlice(text, 0, n + step)) <= most) n += step;
  }
  const last = P.stringCharCodeAt(text, n - 1);
  if (last >= 0xd800 && last < 0xdc00) n--;
  return stringSlice(text, 0, n);
}

// plain returns text for something that is no error: callback('Access denied'), throw {a: 1}, reject().
function plain(thing) {
  if (typeof thing === 'string') return thing;
  try {
    if (isObject(thing) && typeof thing !== 'function') {
      const text = quote(thing);
      if (typeof text === 'string') return text;
    }
    return P.String(thing);
  } catch {
    return 'something that cannot be shown was thrown';
  }
}

const OWN = __dirname + '/';
const MODULES = OWN + 'node_modules/';
const FRAME = /^\s+at /;

// hidden says whether a line of a stack is Node's or the agent's own.
function hidden(line) {
  if (regExpExec(FRAME, line) === null) return false;
  if (P.stringIndexOf(line, 'node:') >= 0 || P.stringIndexOf(line, '(<anonymous>)') >= 0) return true;
  return P.stringIndexOf(line, OWN) >= 0 && P.stringIndexOf(line, MODULES) < 0;
}

function cleanStack(stack) {
  const lines = P.stringSplit(clip(stack, 8 * MAX.stack), '\n');
  let out = '';
  for (let i = 0; i < lines.length; i++) {
    if (hidden(lines[i])) continue;
    const line = regExpExec(FRAME, lines[i]) === null ? lines[i] : translate(lines[i]);
    out += out === '' ? line : '\n' + line;
  }
  return out;
}

// causes adds what lies under an error: fetch says "fetch failed" and keeps the reason in there.
function causes(thing) {
  let out = '';
  let cause = get(thing, 'cause');
  for (let depth = 0; depth < 4 && isObject(cause); depth++) {
    const stack = get(cause, 'stack');
    out += '\n[cause] ' + (typeof stack === 'string' ? cleanStack(stack) : plain(get(cause, 'message')));
    cause = get(cause, 'cause');
  }
  return out;
}

function nameOf(thing) {
  const name = isObject(thing) ? get(thing, 'name') : undefined;
  return typeof name === 'string' && name !== '' ? name : 'Error';
}

function messageOf(thing) {
  if (!isObject(thing)) return plain(thing);
  const message = get(thing, 'message');
  if (typeof message === 'string') return message;
  return message === undefined ? plain(thing) : plain(message);
}

// describe returns the JSON text of an error's fields. most shortens it to about so many bytes in all, for a frame that
// must be small.
function describe(thing, most = Infinity) {
  const name = clip(nameOf(thing), MAX.name);
  let out =
    '{"name":' +
    quote(name) +
    ',"message":' +
    quote(clip(messageOf(thing), most < MAX.message ? most >> 1 : MAX.message));
  if (isObject(thing)) {
    const stack = get(thing, 'stack');
    if (typeof stack === 'string' && stack !== '' && most >= MAX.stack) {
      out += ',"stack":' + quote(clip(cleanStack(stack) + causes(thing), MAX.stack));
    }
    const code = get(thing, 'code');
    if (typeof code === 'string') out += ',"code":' + quote(clip(code, MAX.code));
    else if (P.isFinite(code)) out += ',"code":' + code;
    const status = get(thing, 'statusCode');
    if (P.isFinite(status)) out += ',"statusCode":' + status;
  }
  if (isDenial(thing)) out += ',"denied":true';
  return out + '}';
}

// describeLoad returns the JSON text of a compile error: {name, message, line, column, excerpt}.
function describeLoad(e) {
  let out = '{"name":' + quote(clip(e.name, MAX.name)) + ',"message":' + quote(clip(e.message, MAX.message));
  if (e.line > 0) out += ',"line":' + e.line;
  if (e.column > 0) out += ',"column":' + e.column;
  if (e.excerpt) out += ',"excerpt":' + quote(clip(e.excerpt, MAX.excerpt));
  return out + '}';
}

// shown returns an error as a log line shows it.
function shown(thing) {
  const stack = isObject(thing) ? get(thing, 'stack') : undefined;
  const text = typeof stack === 'string' && stack !== '' ? cleanStack(stack) : `${nameOf(thing)}: ${messageOf(thing)}`;
  return clip('Uncaught ' + text + (isObject(thing) ? causes(thing) : ''), MAX.stack);
}

module.exports = {
  AgentError,
  UnauthorizedError,
  accessDenied,
  isDenial,
  serializeError,
  describe,
  shown,
  cleanStack,
  describeLoad,
  nameOf,
  messageOf,
  clip,
  isObject,
  get,
  plain,
  hasOwn,
};
