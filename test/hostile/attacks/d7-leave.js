// Leaves a mark wherever it can, for whoever comes next.
module.exports = (input) => {
  const marks = [];
  const found = (what) => marks.push(what);
  if (fs.existsSync('/tmp/mark')) found('file');
  if (globalThis.mark) found('global');
  if (Array.prototype.mark) found('prototype');
  if (process.env.MARK) found('environment');
  if (require('fs').mark) found('module');
  if (require('lodash').mark) found('curated module');
  fs.writeFileSync('/tmp/mark', 'x');
  globalThis.mark = Array.prototype.mark = true;
  Object.defineProperty(Array.prototype, 'mark', { enumerable: false });
  process.env.MARK = 'x';
  require('fs').mark = require('lodash').mark = true;
  return marks;
};
