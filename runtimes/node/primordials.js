'use strict';
// What the agent uses of the language and of Node, taken before any tenant code runs. Tenant code shares this realm and
// may patch any prototype; it must then spoil its own answers only, never the link. So the agent calls these, loops by
// index, builds its JSON heads as text, and arms its own long-lived objects (arm) so that no lookup on them reaches a
// shared prototype.
//
// This is robustness, not a boundary: native code of a tenant can do anything in here, and the host believes nothing.

const { AsyncLocalStorage } = require('node:async_hooks');

const { apply, ownKeys, getOwnPropertyDescriptor, defineProperty, getPrototypeOf } = Reflect;
const { bind, call } = Function.prototype;

// uncurry(f)(self, ...args) is f.apply(self, args) without a lookup on f.
const uncurry = apply(bind, bind, [call]);

const hasOwn = uncurry(Object.prototype.hasOwnProperty);

// describe lists what an object of this prototype inherits, nearest first.
function describe(prototype) {
  const list = [];
  const seen = new Set();
  for (let p = prototype; p !== null && p !== Object.prototype; p = getPrototypeOf(p)) {
    for (const key of ownKeys(p)) {
      if (key === 'constructor' || key === '__proto__' || seen.has(key)) continue;
      seen.add(key);
      list.push({ key, descriptor: Object.assign(Object.create(null), getOwnPropertyDescriptor(p, key)) });
    }
  }
  return list;
}

// arm gives object its inherited properties as its own, as they were when described. Works after tenant code has run.
function arm(object, description) {
  for (let i = 0; i < description.length; i++) {
    const { key, descriptor } = description[i];
    if (!hasOwn(object, key)) defineProperty(object, key, descriptor);
  }
  return object;
}

const mapDescription = describe(Map.prototype);
const newMap = () => arm(new Map(), mapDescription);

const newContextStore = () => arm(new AsyncLocalStorage(), describe(AsyncLocalStorage.prototype));

const { allocUnsafeSlow } = Buffer;
const copyBytes = uncurry(Uint8Array.prototype.set);

// concat joins chunks of bytes; Buffer.concat looks up what may be patched.
function concat(chunks) {
  let size = 0;
  for (let i = 0; i < chunks.length; i++) size += chunks[i].length;
  const all = allocUnsafeSlow(size);
  for (let i = 0, at = 0; i < chunks.length; at += chunks[i++].length) copyBytes(all, chunks[i], at);
  return all;
}

module.exports = {
  apply,
  arm,
  arrayIsArray: Array.isArray,
  arrayPop: uncurry(Array.prototype.pop),
  arrayPush: uncurry(Array.prototype.push),
  arrayShift: uncurry(Array.prototype.shift),
  bufferFrom: Buffer.from,
  bufferAllocSlow: allocUnsafeSlow,
  byteLength: Buffer.byteLength,
  clearTimeout,
  concat,
  copyBytes,
  cpuUsage: apply(bind, process.cpuUsage, [process]),
  dateNow: Date.now,
  defineProperty,
  describe,
  fnToString: uncurry(Function.prototype.toString),
  freeze: Object.freeze,
  getPrototypeOf,
  hasOwn,
  isFinite: Number.isFinite,
  isPromise: require('node:util').types.isPromise,
  jsonParse: JSON.parse,
  jsonStringify: JSON.stringify,
  max: Math.max,
  min: Math.min,
  newContextStore,
  newMap,
  nextTick: apply(bind, process.nextTick, [process]),
  now: apply(bind, performance.now, [performance]),
  ownKeys,
  resolved: Promise.resolve(),
  regExpExec: uncurry(RegExp.prototype.exec),
  round: Math.round,
  setImmediate,
  setTimeout,
  stringCharCodeAt: uncurry(String.prototype.charCodeAt),
  stringIndexOf: uncurry(String.prototype.indexOf),
  stringSlice: uncurry(String.prototype.slice),
  stringSplit: uncurry(String.prototype.split),
  stringToLowerCase: uncurry(String.prototype.toLowerCase),
  stringTrim: uncurry(String.prototype.trim),
  subarray: uncurry(Uint8Array.prototype.subarray),
  then: uncurry(Promise.prototype.then),
  uncurry,
  Promise,
  SafeError: Error,
  String,
  utf8Slice: uncurry(Buffer.prototype.utf8Slice),
  utf8Write: uncurry(Buffer.prototype.utf8Write),
};
