'use strict';
// Sends console.* and process.stdout/stderr to the log of the call whose async context the caller carries. What is
// written to the descriptors directly never comes here.

const { Console } = require('node:console');
const { Writable } = require('node:stream');
const util = require('node:util');
const P = require('./primordials.js');
const { useLog } = require('./context.js');
const { cleanStack } = require('./errors.js');

const { format, inspect } = util;

// chomp drops one line end: a line is a message.
function chomp(text) {
  const last = text.length - 1;
  return last >= 0 && P.stringCharCodeAt(text, last) === 10 ? P.stringSlice(text, 0, last) : text;
}

// indented repeats a group's indentation on each line.
function indented(indent, text) {
  if (indent === '') return text;
  const lines = P.stringSplit(text, '\n');
  let out = '';
  for (let i = 0; i < lines.length; i++) out += (i > 0 ? '\n' : '') + indent + lines[i];
  return out;
}

const TRACE = '\n    at ';
const METHODS = P.freeze({
  __proto__: null,
  log: 'info',
  info: 'info',
  dirxml: 'info',
  debug: 'debug',
  warn: 'warn',
  error: 'error',
});

function stream(fd, level, emit) {
  const out = new Writable({
    decodeStrings: false,
    write(chunk, encoding, done) {
      if (chunk.length > 0) emit(level, chomp(typeof chunk === 'string' ? chunk : P.utf8Slice(P.bufferFrom(chunk))));
      done();
    },
  });
  out.fd = fd;
  out.isTTY = false;
  out._type = 'pipe';
  out.destroySoon = out.destroy = () => out; // nobody closes it, as nobody can close the real one
  out.end = (chunk, encoding, done) => {
    if (chunk !== undefined && chunk !== null && typeof chunk !== 'function') out.write(chunk, encoding);
    const last = typeof chunk === 'function' ? chunk : typeof encoding === 'function' ? encoding : done;
    if (typeof last === 'function') P.nextTick(last);
    return out;
  };
  return out;
}

// install patches console and process. send(call, level, text) writes a line; current() is the call of the running
// code.
function install(send, current) {
  const emit = (level, text) => {
    const call = current();
    if (P.stringIndexOf(text, TRACE) >= 0) text = cleanStack(text); // how the agent got there helps nobody
    send(call, level, call === undefined ? text : indented(call.indent, text));
  };
  const { console } = globalThis;
  for (const method of Object.keys(METHODS)) {
    const level = METHODS[method];
    console[method] = (...args) => emit(level, P.apply(format, undefined, args));
  }
  console.dir = (item, options) => emit('info', inspect(item, { customInspect: false, ...options }));
  console.trace = (...args) => {
    const trace = new Error(format(...args));
    trace.name = 'Trace';
    emit('error', `${trace.stack}`);
  };
  console.assert = (holds, ...args) => {
    if (!holds) emit('warn', args.length === 0 ? 'Assertion failed' : `Assertion failed: ${format(...args)}`);
  };
  console.group = console.groupCollapsed = (...args) => {
    if (args.length > 0) emit('info', format(...args));
    const call = current();
    if (call !== undefined) call.indent = call.indent + '  ';
  };
  console.groupEnd = () => {
    const call = current();
    if (call?.indent) call.indent = P.stringSlice(call.indent, 2);
  };
  const stdout = stream(1, 'info', emit);
  const stderr = stream(2, 'error', emit);
  P.defineProperty(process, 'stdout', { configurable: true, enumerable: true, get: () => stdout });
  P.defineProperty(process, 'stderr', { configurable: true, enumerable: true, get: () => stderr });
  const rest = new Console({ stdout, stderr, colorMode: false });
  for (const method of ['table', 'count', 'countReset', 'time', 'timeEnd', 'timeLog']) {
    const run = rest[method];
    console[method] = (...args) => run.apply(rest, args);
  }
  useLog((call) => {
    const log = (...args) => send(call, 'info', P.apply(format, undefined, args));
    for (const level of ['debug', 'info', 'warn', 'error'])
      log[level] = (...args) => send(call, level, P.apply(format, undefined, args));
    return log;
  });
}

module.exports = { install };
