// Answers, and goes on burning CPU.
const { Worker } = require('worker_threads');
module.exports = (input) => {
  const burn = (ms) => { for (const end = Date.now() + ms; Date.now() < end; ); };
  switch (input.how) {
    case 'timers':
      setInterval(() => burn(20), 25);
      break;
    case 'block':
      setTimeout(() => { while (1) {} }, 5);
      break;
    case 'worker':
      new Worker('while (1) {}', { eval: true });
      break;
    case 'child':
      node('while (1) {}', { detached: true }).unref();
      break;
  }
  return 'answered';
};
