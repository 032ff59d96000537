'use strict';
// Decides how the value of a module is called, and calls it. A shape is {takes, start}: takes says whether the body is
// wanted whole ('value') or as a stream ('http'); start(call) runs the code and sees to it that the call is answered
// and settled, once each.

const P = require('./primordials.js');
const { parameters } = require('./scan.js');
const { AgentError, isObject } = require('./errors.js');
const { Context } = require('./context.js');
const { runAction, handlerOf } = require('./action.js');

// Loaded with the first HTTP-shaped function: node:http is a tenth of an idle agent.
const startHttp = (call, fn) => require('./http.js').start(call, fn);

const SIGNATURES =
  'The JavaScript function must have one of the following signatures: ([ctx], callback) or (ctx, req, res).';
const NOTHING = 'Supplied code must return or export a function.';
const shapeError = (message) => new AgentError('SyntaxError', message, 'ERR_SHAPE');

const CALLBACKS = P.freeze({ __proto__: null, cb: true, callback: true, done: true, next: true });

// await_ calls done(value) or failed(error) when a promise or thenable settles. Promises of this realm go the short
// way, which no patched prototype can change.
function await_(promise, done, failed) {
  if (P.isPromise(promise)) P.then(promise, done, failed);
  else P.then(new P.Promise((resolve) => resolve(promise)), done, failed);
}

function isThenable(value) {
  return P.isPromise(value) || (isObject(value) && typeof value.then === 'function');
}

// (input, ctx): the answer is what is returned.
function startFunction(fn) {
  return (call) => {
    const value = fn(call.input, new Context(call));
    if (!isThenable(value)) return call.answer(value, true);
    await_(
      value,
      (result) => call.answer(result, true),
      (error) => call.fail(error, true),
    );
  };
}

// incidental says that a callback function's returned value is no answer: undefined, or what an arrow function's
// shorthand happens to return (a timer, a request).
function incidental(value) {
  if (value === undefined || typeof value === 'function') return true;
  if (!isObject(value) || P.arrayIsArray(value)) return false;
  const prototype = P.getPrototypeOf(value);
  return prototype !== null && prototype !== Object.prototype;
}

// startCallback runs fn with a callback made for this call. deliver(args) turns what was called back into the answer's
// value. mayReturn: a returned value is an answer too.
function startCallback(run, deliver, mayReturn) {
  return (call) => {
    let called = false;
    let early = null; // what was called back before run returned: answered then, knowing whether a promise is left
    let waiting = true; // for run to return, then for a returned promise to settle
    const finish = (error, first, second, settled) => {
      if (error) call.fail(error, settled);
      else call.answer(deliver(call, first, second), settled);
    };
    const callback = (error, first, second) => {
      if (called) return;
      called = true;
      if (waiting && early === RUNNING) {
        early = { error, first, second };
        call.hear(error);
      } else finish(error, first, second, !waiting);
    };
    early = RUNNING;
    let value;
    let thenable = false;
    try {
      value = run(call, callback);
      thenable = isThenable(value);
    } finally {
      // a throw after the callback changes nothing
      const answer = early;
      early = null;
      waiting = thenable;
      if (answer !== RUNNING) finish(answer.error, answer.first, answer.second, !waiting);
    }
    const returned = (result) => {
      waiting = false;
      if (called) return call.settle();
      if (!mayReturn || incidental(result)) return;
      called = true;
      call.answer(result, true);
    };
    if (!thenable) return returned(value);
    await_(value, returned, (error) => {
      called = true;
      call.fail(error, true);
    });
  };
}
const RUNNING = P.freeze({});

const first = (call, value) => value;

const rule = (fn) =>
  startCallback(
    (call, callback) => {
      const input = isObject(call.input) ? call.input : {};
      call.user = isObject(input.user) ? input.user : {};
      call.context = isObject(input.context) ? input.context : {};
      return fn(call.user, call.context, callback);
    },
    (call, user, context) => ({ user: user ?? call.user, context: context ?? call.context }),
    false,
  );

const value = (start, globals) => ({ takes: 'value', start, globals });
const shapes = {
  __proto__: null,
  function: (fn) => value(startFunction(fn)),
  rule: (fn) => value(rule(fn), 'rule'),
  callback: (fn, mayReturn) => value(startCallback((call, cb) => fn(cb), first, mayReturn)),
  contextCallback: (fn, mayReturn) => value(startCallback((call, cb) => fn(new Context(call), cb), first, mayReturn)),
  inputCallback: (fn) => value(startCallback((call, cb) => fn(call.input, new Context(call), cb), first, true)),
  action: (handlers) =>
    value((call) => {
      const run = runAction(call, handlerOf(handlers, call.head.meta));
      await_(
        run.promise,
        () => call.answer(run.result(), true),
        (error) => call.fail(error, true),
      );
    }, 'action'),
  http: (fn) => ({ takes: 'http', start: (call) => startHttp(call, (req, res) => fn(new Context(call), req, res)) }),
  plainHttp: (fn) => ({ takes: 'http', start: (call) => startHttp(call, fn) }),
};

function webtask(fn) {
  switch (fn.length) {
    case 1:
      return shapes.callback(fn, false);
    case 2:
      return shapes.contextCallback(fn, false);
    case 3:
      return shapes.http(fn);
    default:
      throw shapeError(SIGNATURES);
  }
}

// framework recognises an express or koa application that is exported as it is.
function framework(exported) {
  if (
    typeof exported === 'function' &&
    typeof exported.handle === 'function' &&
    typeof exported.listen === 'function'
  ) {
    return shapes.plainHttp((req, res) => exported(req, res));
  }
  if (isObject(exported) && typeof exported.callback === 'function' && P.arrayIsArray(exported.middleware)) {
    return shapes.plainHttp(exported.callback());
  }
  return null;
}

// byParameters is steps 3 to 5 of the search: the last parameter's name, then how many there are.
function byParameters(fn, ruleAllowed) {
  const names = parameters(fn) ?? [];
  const count = names.length > 0 ? names.length : fn.length;
  const last = names.length > 0 ? names[names.length - 1] : '';
  if (CALLBACKS[last] === true) {
    if (count === 3) return ruleAllowed ? shapes.rule(fn) : shapes.inputCallback(fn);
    if (count === 2) return shapes.contextCallback(fn, true);
    if (count === 1) return shapes.callback(fn, true);
  }
  return count === 3 ? shapes.http(fn) : shapes.function(fn);
}

// callable finds the function of a module: itself, or its default export.
function callable(exported) {
  if (typeof exported === 'function') return exported;
  if (isObject(exported) && typeof exported.default === 'function') return exported.default;
  return null;
}

function find(exported, kind) {
  const handlers = handlerOf(exported) !== null;
  if (kind === 'action') {
    if (!handlers) throw shapeError('An action must export a handler, for example exports.onExecutePostLogin.');
    return shapes.action(exported);
  }
  if (handlers && kind === 'auto' && typeof exported !== 'function') return shapes.action(exported);
  const app = kind === 'auto' || kind === 'function' ? (framework(exported) ?? framework(exported?.default)) : null;
  if (app !== null) return app;
  const fn = callable(exported);
  if (fn === null) throw shapeError(NOTHING);
  if (kind === 'rule') return shapes.rule(fn);
  if (kind === 'webtask') return webtask(fn);
  return byParameters(fn, kind === 'auto');
}

// shapeOf returns how an instance is called as this kind; it throws an ERR_SHAPE error where it cannot be.
function shapeOf(instance, kind) {
  let shape = instance.shapes.get(kind);
  if (shape === undefined) {
    shape = find(instance.value, kind);
    instance.shapes.set(kind, shape);
  }
  return shape;
}

module.exports = { shapeOf };
