'use strict';
// Reads the body of an HTTP request as the input of a function that is not HTTP-shaped.

const querystring = require('node:querystring');
const P = require('./primordials.js');

const parseQuery = querystring.parse;
const { stringToLowerCase } = P;

const JSON_TYPE = /^\s*(?:application|text)\/(?:[\w.+-]*\+)?json\s*(?:;|$)/i;
const FORM_TYPE = /^\s*application\/x-www-form-urlencoded\s*(?:;|$)/i;

// parseBody returns a request's body as the input of a function that is not HTTP-shaped: JSON, a form, or text. Throws
// a SyntaxError for what says it is JSON and is not.
function parseBody(head, bytes) {
  let type = '';
  for (let i = 0; i < head.headers.length; i++) {
    if (stringToLowerCase(head.headers[i][0]) === 'content-type') type = head.headers[i][1];
  }
  if (bytes.length === 0) return null;
  const text = P.utf8Slice(bytes);
  if (P.regExpExec(JSON_TYPE, type) !== null) return P.jsonParse(text);
  if (P.regExpExec(FORM_TYPE, type) !== null) return { ...parseQuery(text) };
  return text;
}

module.exports = { parseBody };
