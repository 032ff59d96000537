// Waits for what never comes.
module.exports = (input) => {
  switch (input.how) {
    case 'promise':
      return new Promise(() => {});
    case 'atomics':
      return Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    case 'child':
      return child.spawnSync(process.execPath, ['-e', 'setInterval(() => {}, 1000)']).status;
  }
};
