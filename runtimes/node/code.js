'use strict';
// Compiles source text and keeps what was compiled. Three readings are tried: a function expression, a CommonJS body,
// an ES module. Compiling runs nothing; evaluating happens in the first call, once per (code, revision of the secrets),
// shared by calls that come meanwhile. How a value is called is shapes.js's business.

const vm = require('node:vm');
const P = require('./primordials.js');
const modules = require('./modules.js');
const { AgentError, get } = require('./errors.js');
const { startsAsFunction } = require('./scan.js');
const sourcemap = require('./sourcemap.js');

const { compileFunction } = vm;
const SourceTextModule = vm.SourceTextModule; // only with --experimental-vm-modules
const SyntheticModule = vm.SyntheticModule;
const moduleLink = SourceTextModule && P.uncurry(SourceTextModule.prototype.link);
const moduleEvaluate = SourceTextModule && P.uncurry(SourceTextModule.prototype.evaluate);
const objectKeys = Object.keys;
const { max } = P;
const repeat = P.uncurry(String.prototype.repeat);
const blanks = (n) => repeat(' ', n);

const PARAMETERS = P.freeze(['exports', 'require', 'module', '__filename', '__dirname']);
const WRAP = 'return (';

// CompileError is what LOAD_FAILED reports. Lines and columns count from 1 in the author's text; 0 = not known.
class CompileError {
  constructor(name, message, line, column, excerpt) {
    this.name = name;
    this.message = message;
    this.line = line;
    this.column = column;
    this.excerpt = excerpt;
  }
}

const ARROW = /^[^\n]*:(\d+)\n([^\n]*)\n(?:([ \t]*)\^)?/;
const EXCERPT = 160;

// locate reads the place of a syntax error from the lines that Node puts before its stack. wrapped: the first line has
// WRAP before the author's text.
function locate(e, wrapped) {
  const name = P.String(get(e, 'name'));
  const message = P.String(get(e, 'message'));
  const m = P.regExpExec(ARROW, P.String(get(e, 'stack')));
  if (m === null) return new CompileError(name, message, 0, 0, '');
  const line = +m[1];
  const skip = wrapped && line === 1 ? WRAP.length : 0;
  if (m[3] === undefined) {
    // Node marks no place far out on a long line
    return new CompileError(name, message, line, 0, P.stringSlice(m[2], skip, skip + EXCERPT));
  }
  const column = max(m[3].length - skip, 0);
  // A minified line of 90 kB helps nobody: show what is around the place.
  const from = max(column - EXCERPT / 2, 0);
  const text = P.stringSlice(m[2], skip + from, skip + from + EXCERPT);
  return new CompileError(name, message, line, column + 1, text + '\n' + P.stringSlice(m[3], skip + from) + '^');
}

// atEnd is the error of a function expression that does not end: the bracket behind it is not the author's.
function atEnd(text) {
  const lines = P.stringSplit(text, '\n');
  const last = lines[lines.length - 1];
  const from = max(last.length - EXCERPT / 2, 0);
  const excerpt = P.stringSlice(last, from) + '\n' + blanks(last.length - from) + '^';
  return new CompileError('SyntaxError', 'Unexpected end of input', lines.length, last.length + 1, excerpt);
}

// attempt compiles a body and returns {run} or {error}.
function attempt(body, filename, columnOffset, wrapped) {
  try {
    const options = { __proto__: null, filename, columnOffset };
    if (SourceTextModule) options.importModuleDynamically = importFrom;
    else options.importModuleDynamically = vm.constants?.USE_MAIN_CONTEXT_DEFAULT_LOADER;
    return { run: compileFunction(body, PARAMETERS, options), error: null };
  } catch (e) {
    return { run: null, error: locate(e, wrapped) };
  }
}

const MODULE_WORDS = /(?:^|[\s;}])(?:import\b|export\b|await\b)/;
const STATEMENT = /^[ \t]*(?:import\b[\s{*"']|export\b)/m;

// compile returns {run} (CommonJS, or a function expression that is returned), {text} (an ES module), or throws a
// CompileError.
function compile(text, filename) {
  let first = null;
  const start = startsAsFunction(text);
  if (start !== '') {
    const expression = attempt(WRAP + text + '\n)', filename, -WRAP.length, true);
    // "function f() {} (…)" is an expression too, a call; as one, it would accept being assigned to, which a function
    // does not.
    const call =
      start === 'function' && expression.run !== null && attempt('(' + text + '\n=0)', filename, 0, false).run !== null;
    if (expression.run !== null && !call) return expression;
    first = expression.error;
    if (first !== null && first.line > P.stringSplit(text, '\n').length) first = atEnd(text);
  }
  const body = attempt(text, filename, 0, false);
  if (body.run !== null) return body;
  if (P.regExpExec(MODULE_WORDS, text) !== null) {
    const failed = checkModule(text, filename);
    if (failed === null) return { run: null, text };
    if (P.regExpExec(STATEMENT, text) !== null) throw failed;
  }
  // An anonymous function that does not parse is no statement either: what is wrong inside it is the error to show.
  throw first ?? body.error;
}

// checkModule returns null or the CompileError of text as an ES module.
function checkModule(text, filename) {
  if (!SourceTextModule) return new CompileError('SyntaxError', 'this node runs without ES modules', 0, 0, '');
  try {
    new SourceTextModule(text, { identifier: filename });
    return null;
  } catch (e) {
    return locateInModule(e, text, filename);
  }
}

const MASKS = [
  /^([ \t]*)export[ \t]+default\b/gm,
  /^([ \t]*)export\b(?=[ \t]*(?:async|function|class|const|let|var))/gm,
  /^([ \t]*)(?:import|export)\b[^'"()\n]*?(?:from[ \t]*)?(['"])[^'"\n]*\2/gm,
  /^([ \t]*)export[ \t]*\{[^}]*\}/gm,
];
const replace = P.uncurry(String.prototype.replace);

// locateInModule finds the line: Node does not tell it for modules. With imports and exports blanked out, of the same
// length, most texts fail at the same place as the body of an async function.
function locateInModule(e, text, filename) {
  let masked = text;
  for (let i = 0; i < MASKS.length; i++) {
    masked = replace(masked, MASKS[i], (all, indent) => {
      const word = P.regExpExec(/default/, all) !== null ? '_=' : ''; // what follows is an expression
      return replace(indent + word, /\n/g, ' ') + replace(all.slice(indent.length + word.length), /[^\n]/g, ' ');
    });
  }
  const found = attempt('async () => {' + masked + '\n}', filename, 0, false).error;
  if (found === null || found.message !== P.String(get(e, 'message'))) {
    return new CompileError(P.String(get(e, 'name')), P.String(get(e, 'message')), found?.line ?? 0, 0, '');
  }
  if (found.line === 1) found.column = max(found.column - 13, 1);
  const lines = P.stringSplit(text, '\n');
  const from = max(found.column - 81, 0);
  const source = P.stringSlice(lines[found.line - 1] ?? '', from, from + 160);
  found.excerpt = source + '\n' + blanks(max(found.column - 1 - from, 0)) + '^';
  return found;
}

// importFrom serves import() and import declarations: builtin and curated modules, the same as require.
function importFrom(specifier) {
  const value = modules.require(specifier);
  const names = [];
  if (value !== null && (typeof value === 'object' || typeof value === 'function')) {
    const keys = objectKeys(value);
    for (let i = 0; i < keys.length; i++) if (keys[i] !== 'default') P.arrayPush(names, keys[i]);
  }
  P.arrayPush(names, 'default');
  const module = new SyntheticModule(names, function () {
    for (let i = 0; i < names.length - 1; i++) this.setExport(names[i], value[names[i]]);
    this.setExport('default', value !== null && value.__esModule && 'default' in value ? value.default : value);
  });
  // Node 24 makes them linked.
  const linked = module.status === 'unlinked' ? moduleLink(module, () => {}) : P.resolved;
  return P.then(linked, () => P.then(moduleEvaluate(module), () => module));
}

function evaluateModule(text, filename) {
  const module = new SourceTextModule(text, {
    identifier: filename,
    importModuleDynamically: importFrom,
    initializeImportMeta(meta) {
      meta.url = 'paddock:' + filename;
    },
  });
  const linked = moduleLink(module, (specifier) => importFrom(specifier));
  return P.then(linked, () => P.then(moduleEvaluate(module), () => module.namespace));
}

function evaluateBody(run, filename, head) {
  const module = {
    exports: {},
    id: filename,
    filename,
    loaded: false,
    children: [],
    paths: [],
    webtask: { secrets: head.secrets ?? {}, meta: head.meta ?? {}, params: {}, storage: undefined },
  };
  const returned = P.apply(run, module.exports, [module.exports, modules.require, module, filename, '/']);
  module.loaded = true;
  return returned === undefined ? module.exports : returned;
}

// Instance is one evaluation of a code. value is set once ready; until then pending is the promise that the first call
// made.
class Instance {
  constructor(rev) {
    this.rev = rev;
    this.ready = false;
    this.value = undefined;
    this.pending = null;
    this.shapes = P.newMap(); // kind → shape, kept by shapes.js
  }
}

// Code is one source text, by hash. It holds one instance: a new revision drops the old.
class Code {
  constructor(hash, kind, name, text) {
    this.hash = hash;
    this.kind = kind;
    this.name = name;
    this.size = text.length;
    this.error = null; // CompileError
    this.compiled = null;
    this.instance = null;
    try {
      this.compiled = compile(text, name);
      sourcemap.note(name, text);
    } catch (e) {
      this.error = e instanceof CompileError ? e : new CompileError('Error', P.String(get(e, 'message')), 0, 0, '');
    }
  }

  // evaluate returns an instance that is ready, or one whose pending promise the caller waits for, or throws what the
  // module's top level threw (the next call tries again). Runs tenant code, in the caller's async context.
  evaluate(head) {
    const rev = head.rev ?? '';
    let instance = this.instance;
    if (instance !== null && instance.rev === rev) return instance;
    instance = new Instance(rev);
    if (this.compiled.run !== null) {
      instance.value = evaluateBody(this.compiled.run, this.name, head);
      instance.ready = true;
      this.instance = instance;
      return instance;
    }
    this.instance = instance;
    const forget = () => {
      if (this.instance === instance) this.instance = null;
    };
    const pending = P.then(evaluateModule(this.compiled.text, this.name), (namespace) => {
      instance.value = namespace;
      instance.ready = true;
      instance.pending = null;
    });
    P.then(pending, undefined, forget);
    instance.pending = pending;
    return instance;
  }
}

// Cache holds codes by hash, least recently used first, bounded by count and by bytes of source.
class Cache {
  constructor() {
    this.codes = P.newMap();
    this.bytes = 0;
    this.last = null;
    this.limit(64, 32 << 20);
  }

  limit(entries, bytes) {
    this.maxEntries = entries;
    this.maxBytes = bytes;
  }

  get(hash) {
    const last = this.last; // the same code again is the usual case
    if (last !== null && last.hash === hash) return last;
    const code = this.codes.get(hash);
    if (code === undefined) return undefined;
    this.codes.delete(hash);
    this.codes.set(hash, code);
    this.last = code;
    return code;
  }

  add(code) {
    const old = this.codes.get(code.hash);
    if (old !== undefined) this.drop(old);
    this.codes.set(code.hash, code);
    this.bytes += code.size;
    this.last = code;
    while (this.codes.size > 1 && (this.codes.size > this.maxEntries || this.bytes > this.maxBytes)) {
      this.drop(this.codes.get(firstKey(this.codes)));
    }
  }

  drop(code) {
    this.codes.delete(code.hash);
    this.bytes -= code.size;
    if (this.last === code) this.last = null;
  }
}

const iteratorNext = P.uncurry(P.getPrototypeOf(new Map().keys()).next);
const firstKey = (map) => iteratorNext(map.keys()).value;

module.exports = { Cache, Code, AgentError };
