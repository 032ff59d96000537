// Takes the agent's connection away: reads from it, closes it, shuts it down, hands it to a child, connects anew.
module.exports = async (input) => {
  const fd = linkFD();
  switch (input.how) {
    case 'read': // what the host says next is not the agent's any more
      for (const until = Date.now() + 5000; Date.now() < until; ) try { fs.readSync(fd, Buffer.alloc(1 << 16)); } catch {}
      return 'read';
    case 'close':
      fs.closeSync(fd);
      break;
    case 'replace': // another file under the same number
      fs.closeSync(fd);
      fs.openSync('/dev/null', 'r+');
      break;
    case 'child': { // a child has it, too, and speaks
      const bytes = result(input.stream, '"from the child"').toString('hex');
      child.spawn(process.execPath, ['-e', `require('fs').writeSync(3, Buffer.from('${bytes}', 'hex')); setInterval(() => {}, 1000)`], { stdio: ['ignore', 'ignore', 'ignore', fd], detached: true });
      break;
    }
    case 'connect': { // there is one connection in a container's life at a time
      const net = require('net');
      await refused('connect again', () => new Promise((yes, no) => net.connect('/run/paddock/link').on('connect', () => yes('connected')).on('error', no)), 'ENOENT', 'ECONNREFUSED', 'EACCES', 'EPERM');
      return report;
    }
  }
  await sleep(500);
  return 'not noticed';
};
