'use strict';
// Shows frames of bundled code as its author wrote them: by the source map that stands in the code's last line. Maps are
// read when something is thrown, not before. What stands in them is the tenant's own affair.

const { SourceMap } = require('node:module');
const P = require('./primordials.js');

const lastIndexOf = P.uncurry(String.prototype.lastIndexOf);
const toText = P.uncurry(Buffer.prototype.toString);
const findEntry = P.uncurry(SourceMap.prototype.findEntry);

const COMMENT = '\n//# sourceMappingURL=data:application/json;base64,';
const MOST = 64; // codes, as many as the agent keeps

// name of the code → its map: text until it is needed, null where it cannot be read.
const maps = P.newMap();

// note remembers the map of a code that was compiled under a name, and forgets that of an older one.
function note(name, text) {
  maps.delete(name);
  const at = lastIndexOf(text, COMMENT);
  if (at < 0) return;
  if (maps.size >= MOST) maps.clear();
  maps.set(name, P.stringSlice(text, at + COMMENT.length));
}

function mapOf(name) {
  const known = maps.get(name);
  if (typeof known !== 'string') return known;
  let map = null;
  try {
    map = new SourceMap(P.jsonParse(toText(P.bufferFrom(known, 'base64'), 'utf8')));
  } catch {
    // a map of somebody else's making: the frames stay as they are
  }
  maps.set(name, map);
  return map;
}

const PLACE = /^(.*?)([^\s()]+):(\d+):(\d+)(\)?)$/;

// translate returns a line of a stack with the author's file, line and column, where there is a map.
function translate(line) {
  if (maps.size === 0) return line;
  const m = P.regExpExec(PLACE, line);
  if (m === null) return line;
  const map = mapOf(m[2]);
  if (!map) return line;
  let entry;
  try {
    entry = findEntry(map, m[3] - 1, m[4] - 1);
  } catch {
    return line;
  }
  if (typeof entry.originalSource !== 'string') return line;
  return `${m[1]}${entry.originalSource}:${entry.originalLine + 1}:${entry.originalColumn + 1}${m[5]}`;
}

module.exports = { note, translate };
