'use strict';
// require as tenant code sees it: Node's builtin modules and the curated ones beside this file, with or without a
// version. There are no files: relative and absolute paths are errors. Which files exist is no secret and this is no
// boundary.

const { createRequire, isBuiltin } = require('node:module');
const path = require('node:path');
const P = require('./primordials.js');
const { AgentError } = require('./errors.js');

const DIR = process.env.PADDOCK_MODULES ?? __dirname; // where node_modules is; tests set it
const load = createRequire(path.join(DIR, 'agent.js'));
const { regExpExec, stringSlice } = P;
delete process.env.PADDOCK_MODULES;

// Ours, because no registry has them.
const OWN = P.freeze({ __proto__: null, '@auth0/rule-utilities': './rule-utilities.js' });

// name, version and path inside: @scope/name@1.2.3/lib/x.
const SPECIFIER = /^(@[^/@]+\/[^/@]+|[^/@]+)(?:@([^/]*))?(\/.+)?$/;

let warn = () => {};
const versions = P.newMap(); // name → the installed version, '' where there is none

function installed(name) {
  let version = versions.get(name);
  if (version === undefined) {
    try {
      version = load(path.join(DIR, 'node_modules', name, 'package.json')).version;
    } catch {
      version = '';
    }
    versions.set(name, version);
  }
  return version;
}

const major = (version) => P.regExpExec(/\d+/, version)?.[0] ?? '';

// choose returns the installed name that stands for name@version. Two majors of uuid are there: the rules' and the
// current.
function choose(name, version) {
  if (name !== 'uuid' || version === '' || major(version) === '' || +major(version) <= 3) return name;
  return 'uuid-current';
}

const EXACT = /^[v=]?\d+(?:\.\d+){0,2}(?:[-+].*)?$/;

// differs says whether the installed version is another than the one asked for: 4 and 4.17 stand for all that begin so.
function differs(asked, have) {
  if (P.regExpExec(EXACT, asked) === null) return false; // a range, a tag: nothing exact was asked for
  asked = P.regExpExec(/\d.*/, asked)[0];
  return have !== asked && P.stringIndexOf(have, asked + '.') !== 0;
}

function notFound(specifier) {
  return new AgentError(
    'Error',
    `Cannot find module '${specifier}'. Builtin modules of Node and the curated modules of the runtime ` +
      'can be required; bundle anything else into the code.',
    'MODULE_NOT_FOUND',
  );
}

// resolve returns what to ask Node for, and warns where the version is another.
function resolve(specifier) {
  if (typeof specifier !== 'string')
    throw new AgentError('TypeError', "The module's name must be a string", 'ERR_INVALID_ARG_TYPE');
  if (isBuiltin(specifier)) return specifier;
  const m = regExpExec(SPECIFIER, specifier);
  const first = stringSlice(specifier, 0, 1);
  if (
    m === null ||
    first === '.' ||
    first === '/' ||
    P.stringIndexOf(specifier, '..') >= 0 ||
    P.stringIndexOf(specifier, ':') >= 0
  ) {
    throw notFound(specifier);
  }
  const asked = m[2] ?? '';
  if (asked !== '' && isBuiltin(m[1])) return m[1];
  if (OWN[m[1]] !== undefined) return OWN[m[1]];
  const name = choose(m[1], asked);
  const have = installed(name);
  if (have === '') throw notFound(specifier);
  if (asked !== '' && differs(asked, have)) warn(`${specifier} is not installed, ${m[1]}@${have} is used`);
  return name + (m[3] ?? '');
}

function tenantRequire(specifier) {
  const found = resolve(specifier);
  if (found === './rule-utilities.js') return require('./rule-utilities.js');
  try {
    return load(found);
  } catch (e) {
    // A file of a module that is not there is the caller's mistake; a fault inside a module is shown as it is.
    if (
      e !== null &&
      typeof e === 'object' &&
      e.code === 'MODULE_NOT_FOUND' &&
      P.stringIndexOf(`${e.message}`, `'${found}'`) >= 0
    ) {
      throw notFound(specifier);
    }
    throw e;
  }
}
tenantRequire.resolve = (specifier) => resolve(specifier);
tenantRequire.cache = { __proto__: null };
tenantRequire.main = undefined;

module.exports = {
  require: tenantRequire,
  has: (name) => isBuiltin(name) || installed(name) !== '',
  onWarning(fn) {
    warn = fn;
  },
};
