// Raises V8's own heap limit first, for itself and what it starts.
const v8 = require('v8');
module.exports = () => {
  v8.setFlagsFromString('--max-old-space-size=8192');
  v8.setFlagsFromString('--max-heap-size=8192');
  const hoard = [];
  for (;;) hoard.push(new Array(10000).fill(hoard.length));
};
