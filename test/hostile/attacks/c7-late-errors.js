// Throws where nobody waits for it.
module.exports = async (input) => {
  switch (input.how) {
    case 'rejection':
      Promise.reject(new Error('from nowhere'));
      return new Promise(() => {});
    case 'tick':
      setTimeout(() => { throw new Error('from nowhere'); }, 5);
      return new Promise(() => {});
    case 'toJSON':
      return { toJSON() { throw new Error('from nowhere'); } };
    case 'getter':
      return { get x() { throw new Error('from nowhere'); } };
    case 'proxy':
      throw new Proxy(new Error('x'), { get() { throw new Error('from nowhere'); }, getPrototypeOf() { throw 1; } });
    case 'late': // after the answer: the next call must not hear of it
      setTimeout(() => { throw new Error('from nowhere'); }, 5);
      setTimeout(() => Promise.reject(new Error('from nowhere')), 10);
      return 'answered';
  }
};
