'use strict';
// Context is the ctx of functions and webtasks. What costs something is made when it is first read; a property once
// read, or assigned, is the object's own.

const querystring = require('node:querystring');
const { inspect } = require('node:util');
const P = require('./primordials.js');
const { isObject } = require('./errors.js');
const { stringIndexOf, stringSlice, stringToLowerCase, ownKeys } = P;
const parseQuery = querystring.parse;
const abortTimeLeft = (call) => P.max(0, P.round((call.head.ms ?? 0) - (P.now() - call.started)));

// queryOf returns the query of the call's URL, without the service's own parameters.
function queryOf(call) {
  const url = call.head.http?.url ?? '';
  const mark = stringIndexOf(url, '?');
  if (mark < 0) return {};
  const parsed = parseQuery(stringSlice(url, mark + 1));
  const query = {};
  const keys = ownKeys(parsed);
  for (let i = 0; i < keys.length; i++) {
    if (keys[i] !== 'key' && stringIndexOf(keys[i], 'webtask_') !== 0) query[keys[i]] = parsed[keys[i]];
  }
  return query;
}

// headersOf returns the request's headers, lower-cased, repeated ones joined.
function headersOf(call) {
  const list = call.head.http?.headers ?? [];
  const headers = {};
  for (let i = 0; i < list.length; i++) {
    const name = stringToLowerCase(list[i][0]);
    headers[name] = P.hasOwn(headers, name)
      ? headers[name] + (name === 'cookie' ? '; ' : ', ') + list[i][1]
      : list[i][1];
  }
  return headers;
}

// dataOf lays query, params and secrets over each other, later wins; keys of the input are added where there are none
// yet.
function dataOf(ctx, input) {
  const data = { ...ctx.query, ...ctx.params, ...ctx.secrets };
  if (isObject(input) && !P.arrayIsArray(input)) {
    const keys = ownKeys(input);
    for (let i = 0; i < keys.length; i++) if (!P.hasOwn(data, keys[i])) data[keys[i]] = input[keys[i]];
  }
  return data;
}

// settingsOf returns the tenant's settings: the open ones, and its secrets over them.
const settingsOf = (call) => ({ ...call.head.config, ...call.head.secrets });

let makeLog = () => () => {};

const SHOWN = P.freeze(['body', 'callId', 'function', 'tenant', 'query', 'headers', 'params', 'meta']);

class Context {
  #call;

  constructor(call) {
    this.#call = call;
  }

  // deadline is how many milliseconds are left.
  get deadline() {
    return abortTimeLeft(this.#call);
  }

  // What console.log shows: no values of secrets, which are in data as well.
  [inspect.custom]() {
    const seen = {};
    for (let i = 0; i < SHOWN.length; i++) seen[SHOWN[i]] = this[SHOWN[i]];
    seen.configuration = { ...this.configuration };
    seen.secrets = {};
    const keys = ownKeys(this.secrets);
    for (let i = 0; i < keys.length; i++) {
      seen.secrets[keys[i]] = '[secret]';
      if (P.hasOwn(seen.configuration, keys[i])) seen.configuration[keys[i]] = '[secret]';
    }
    return seen;
  }

  static call(ctx) {
    return ctx.#call;
  }
}

const lazy = {
  __proto__: null,
  body: (call) => call.input ?? undefined,
  callId: (call) => call.head.id,
  configuration: settingsOf,
  data: (call, ctx) => dataOf(ctx, call.input),
  function: (call) => call.head.name,
  headers: headersOf,
  log: (call) => makeLog(call),
  meta: (call) => call.head.meta ?? {},
  params: () => ({}),
  query: queryOf,
  secrets: (call) => call.head.secrets ?? {},
  signal: (call) => call.signal(),
  tenant: (call) => call.head.tenant,
};

const callOf = Context.call;
delete Context.call;

for (const name of Object.keys(lazy)) {
  const make = lazy[name];
  const own = (ctx, value) =>
    P.defineProperty(ctx, name, { value, writable: true, configurable: true, enumerable: true });
  P.defineProperty(Context.prototype, name, {
    configurable: true,
    get() {
      const value = make(callOf(this), this);
      own(this, value);
      return value;
    },
    set(value) {
      own(this, value);
    },
  });
}

module.exports = {
  Context,
  settingsOf,
  queryOf,
  headersOf,
  // useLog says how ctx.log is made: logs.js.
  useLog(fn) {
    makeLog = fn;
  },
};
