'use strict';
// Keeps one call's accident from being everybody's: exits become errors of the running call, exceptions and rejections
// that nobody handles go to the call whose async context they carry, and the process lives. What the sandbox has not is
// stubbed.

const P = require('./primordials.js');
const { AgentError, isObject, get } = require('./errors.js');

const reallyExit = P.apply(Function.prototype.bind, process.reallyExit, [process]);

// install takes current() (the call of the running code) and report(call, error) (a line in its log).
function install(current, report) {
  const caught = (error) => {
    const call = current();
    if (isObject(error) && exits.has(error)) return; // its call has its answer
    if (call === undefined || !call.thrown(error)) report(call, error);
  };
  process.setUncaughtExceptionCaptureCallback((error) => caught(unwrap(error)));
  process.on('unhandledRejection', caught);
  process.setUncaughtExceptionCaptureCallback = () => {
    throw new AgentError(
      'Error',
      'process.setUncaughtExceptionCaptureCallback is not available here',
      'ERR_UNAVAILABLE',
    );
  };
  stopExits(current);
  hideInternals();
}

// unwrap returns the reason of a rejection that Node made an exception, because the listener above was removed.
function unwrap(error) {
  return isObject(error) && get(error, 'code') === 'ERR_UNHANDLED_REJECTION' && get(error, 'reason') !== undefined
    ? error.reason
    : error;
}

const exits = P.arm(new WeakSet(), P.describe(WeakSet.prototype));

function stopExits(current) {
  // refuse ends the running call and throws, so that what follows the exit does not run.
  const refuse = (what) => {
    const error = new AgentError('Error', `${what} was called; code cannot end the process it runs in`, 'ERR_EXIT');
    exits.add(error);
    current()?.thrown(error);
    throw error;
  };
  process.exit = (code) => refuse(`process.exit(${code === undefined ? '' : P.String(code)})`);
  process.reallyExit = process.exit;
  process.abort = () => refuse('process.abort()');
  process._rawDebug = () => {};
  const kill = process.kill;
  process.kill = (pid, signal) => {
    const self = pid === process.pid || pid === 0 || pid === -1 || pid === -process.pid || +pid === process.pid;
    if (self && signal !== 0) refuse(`process.kill(${P.String(pid)})`);
    return P.apply(kill, process, [pid, signal]);
  };
}

// hideInternals removes what no code of today needs: hygiene, no boundary.
function hideInternals() {
  for (const name of [
    'binding',
    '_linkedBinding',
    'dlopen',
    '_getActiveHandles',
    '_getActiveRequests',
    '_debugProcess',
    '_debugEnd',
    '_startProfilerIdleNotifier',
    '_stopProfilerIdleNotifier',
  ]) {
    delete process[name];
  }
}

module.exports = { install, reallyExit };
