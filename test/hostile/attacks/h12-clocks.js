// Builds the clocks that side channels are measured with. They run: what they could tell is not promised away. Nobody else may suffer.
const { Worker } = require('worker_threads');
module.exports = async () => {
  const counter = new SharedArrayBuffer(4);
  const w = new Worker(`const c = new Int32Array(require('worker_threads').workerData); for (;;) Atomics.add(c, 0, 1)`, { eval: true, workerData: counter });
  w.on('error', () => {});
  const c = new Int32Array(counter);
  for (let i = 0; i < 100 && c[0] === 0; i++) await sleep(50);
  const ticks = [];
  const probe = new Uint8Array(8 << 20);
  for (let i = 0; i < probe.length; i += 64) { // prime, and probe
    const before = Atomics.load(c, 0);
    probe[i]++;
    ticks.push(Atomics.load(c, 0) - before);
  }
  must('a clock of its own', c[0] > 0, c[0]);
  await w.terminate();
  must('the process has a clock', process.hrtime.bigint() > 0n);
  report.facts.most = Math.max(...ticks.slice(0, 100000));
  return report;
};
