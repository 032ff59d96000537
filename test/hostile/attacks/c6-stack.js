// Uses the stack up.
module.exports = (input) => {
  const deep = () => deep() + 1;
  switch (input.how) {
    case 'js':
      return deep();
    case 'json': {
      let x = [];
      for (let i = 0; i < 1e6; i++) x = [x];
      return x; // the agent meets it when it serialises the answer
    }
    case 'getter': {
      const x = () => ({ get again() { return x(); } });
      return x();
    }
    case 'regexp':
      return new RegExp('('.repeat(1e5) + ')'.repeat(1e5)).test('x');
    case 'edge': { // calls the agent with next to no stack left, over and over
      const edge = () => { try { edge(); } catch {} console.log('x'); };
      edge();
      return 'alive';
    }
  }
};
