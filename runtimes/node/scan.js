'use strict';
// Looks at source text without parsing it: does it begin like a function expression, and what are a function's
// parameters called? The compiler has the last word; this only decides what to ask it.

const P = require('./primordials.js');

const { regExpExec, stringCharCodeAt: at, stringSlice, stringIndexOf } = P;

const SPACE = /^(?:\s|\uFEFF)+/;

// skip returns text without leading blanks and comments.
function skip(text) {
  for (;;) {
    const blank = regExpExec(SPACE, text);
    if (blank !== null) text = stringSlice(text, blank[0].length);
    if (at(text, 0) !== 47) return text;
    const next = at(text, 1);
    if (next === 47) {
      const m = regExpExec(/[\n\r\u2028\u2029]/, text);
      text = m === null ? '' : stringSlice(text, m.index);
    } else if (next === 42) {
      const end = stringIndexOf(text, '*/', 2);
      text = end < 0 ? '' : stringSlice(text, end + 2);
    } else {
      return text;
    }
  }
}

// afterString returns the index behind the string or template that opens at i.
function afterString(text, i) {
  const quote = at(text, i);
  for (i++; i < text.length; i++) {
    const c = at(text, i);
    if (c === 92) i++;
    else if (c === quote) return i + 1;
    else if (c === 36 && quote === 96 && at(text, i + 1) === 123) i = afterBracket(text, i + 1) - 1;
  }
  return i;
}

// afterComment returns the index behind the comment that opens at i, or i if none does.
function afterComment(text, i) {
  const next = at(text, i + 1);
  if (next !== 47 && next !== 42) return i;
  const end = stringIndexOf(text, next === 47 ? '\n' : '*/', i + 2);
  return end < 0 ? text.length : end + (next === 47 ? 1 : 2);
}

const opens = (c) => c === 40 || c === 91 || c === 123;
const closes = (c) => c === 41 || c === 93 || c === 125;

// next returns the index behind the thing at i: a string, a comment, a bracketed part, or one character.
function next(text, i) {
  const c = at(text, i);
  if (c === 34 || c === 39 || c === 96) return afterString(text, i);
  if (c === 47) return P.max(afterComment(text, i), i + 1);
  if (opens(c)) return afterBracket(text, i);
  return i + 1;
}

// afterBracket returns the index behind the bracket that closes the one at i. Regular expressions are not understood;
// in parameter lists they are too rare to matter.
function afterBracket(text, i) {
  for (i++; i < text.length;) {
    if (closes(at(text, i))) return i + 1;
    i = next(text, i);
  }
  return i;
}

const FUNCTION = /^function(?![\w$\u0080-\uffff])/;
const ASYNC = /^async(?![\w$\u0080-\uffff])/;
const SINGLE = /^[\p{ID_Start}$_][\p{ID_Continue}$\u200c\u200d]*/u;

function arrowFollows(text) {
  return stringIndexOf(skip(text), '=>') === 0;
}

// startsAsFunction says whether text begins like a function expression: 'function', 'arrow', or '' for neither.
function startsAsFunction(text) {
  text = skip(text);
  const behind = regExpExec(ASYNC, text) === null ? text : skip(stringSlice(text, 5));
  if (regExpExec(FUNCTION, behind) !== null) return 'function';
  return startsAsArrow(text) ? 'arrow' : '';
}

function startsAsArrow(text) {
  if (regExpExec(ASYNC, text) !== null) {
    const rest = skip(stringSlice(text, 5));
    if (arrowFollows(rest)) return true; // a parameter called async
    if (at(rest, 0) === 40) return arrowFollows(stringSlice(rest, afterBracket(rest, 0)));
    text = rest;
  }
  if (at(text, 0) === 40) return arrowFollows(stringSlice(text, afterBracket(text, 0)));
  const name = regExpExec(SINGLE, text);
  return name !== null && arrowFollows(stringSlice(text, name[0].length));
}

const HEAD = /^(?:async(?![\w$]))?\s*(?:function(?![\w$]))?\s*\*?\s*/;
const NAME = /^[\p{ID_Start}$_][\p{ID_Continue}$\u200c\u200d]*/u;

// parameters returns the names of a function's parameters ('' for a pattern, a rest parameter does not count), or null
// where its text does not say (native, bound).
function parameters(fn) {
  let text;
  try {
    text = skip(P.fnToString(fn));
  } catch {
    return null;
  }
  if (regExpExec(/\{\s*\[native code\]\s*\}\s*$/, text) !== null) return null;
  const head = regExpExec(HEAD, text)[0];
  let rest = skip(stringSlice(text, head.length));
  if (head === '' || at(rest, 0) !== 40) {
    const single = regExpExec(NAME, rest); // x => …, name(…) { … }, function name(…)
    if (single !== null) {
      const behind = skip(stringSlice(rest, single[0].length));
      if (stringIndexOf(behind, '=>') === 0) return [single[0]];
      rest = behind;
    }
  }
  const open = stringIndexOf(rest, '(');
  if (open < 0) return null;
  return split(stringSlice(rest, open + 1, afterBracket(rest, open) - 1));
}

// split cuts a parameter list at its commas.
function split(list) {
  const names = [];
  let start = 0;
  for (let i = 0; i <= list.length;) {
    if (i === list.length || at(list, i) === 44) {
      const one = skip(stringSlice(list, start, i));
      if (one !== '' && stringIndexOf(one, '...') !== 0) {
        const name = regExpExec(NAME, one);
        P.arrayPush(names, name === null ? '' : name[0]);
      }
      start = ++i;
    } else {
      i = next(list, i);
    }
  }
  return names;
}

module.exports = { startsAsFunction, parameters };
