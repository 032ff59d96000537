'use strict';
// The rehearsal before the first call: it happens, and nobody sees anything of it.

const assert = require('node:assert');
const { test } = require('node:test');
const { withHost } = require('./host.js');

const { rehearse } = require('../rehearse.js');
const { Link } = require('../link.js');
const { run } = require('../run.js');
const P = require('../primordials.js');

test(
  'nothing of it reaches the host, and none of its code can be called',
  withHost(async (host) => {
    await new Promise((done) => setTimeout(done, 200)); // it is over by then
    for (let no = 0; no < 5; no++) {
      const x = await host.open(`part ${no}`, 1).answered;
      assert.equal(x.outcome, 'not_loaded');
      assert.deepEqual(x.logs, []);
    }
    assert.equal((await host.run('(x) => x + 1', 1)).value, 2);
  }),
);

// played counts the turns of a rehearsal that over() lets go on.
async function played(over) {
  const link = new Link({ path: '', agent: '', run, context: P.newContextStore(), giveUp: () => {} });
  let calls = 0;
  let failed = 0;
  const result = link.result;
  link.result = function (call, head, ...rest) {
    calls++;
    if (head.includes('"outcome"')) failed++;
    return result.call(this, call, head, ...rest);
  };
  const { log } = console;
  console.log = () => {};
  rehearse(link, () => over(calls));
  for (let turn = 0; turn < 100; turn++) await new Promise((done) => setImmediate(done));
  console.log = log;
  assert.equal(link.calls.size, 0, 'calls that never ended');
  return { calls, failed };
}

test('every part is played, and only the one that is to fail does', async () => {
  assert.deepEqual(await played(() => false), { calls: 15, failed: 3 });
});

test('what the host sends ends it', async () => {
  assert.deepEqual(await played((calls) => calls === 4), { calls: 4, failed: 1 });
});
