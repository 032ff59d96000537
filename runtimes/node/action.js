'use strict';
// Runs an action: exports.on… = async (event, api). Effects are collected and come back as the value; the caller
// applies them.
//
//   {access: {denied, reason}, idToken: {claims}, accessToken: {claims, addScopes, removeScopes}, user: {user_metadata,
//    app_metadata}, multifactor: {provider, options}, redirect: {url}, authentication: {primaryUser},
//    samlResponse: {…}, commands: [[method, …arguments], …]}
//
// Parts without an effect are absent; commands holds every call in its order.

const P = require('./primordials.js');
const { AgentError, isObject } = require('./errors.js');
const tokens = () => require('./rule-utilities.js'); // loads node:crypto: only when asked

const HANDLER = /^on[A-Z]/;
const EXECUTE = /^onExecute/;

// handlerOf returns the handler that meta.trigger names, else the first onExecute…, else the first on…; null where
// there is none.
function handlerOf(exported, meta) {
  if (!isObject(exported)) return null;
  const named = meta?.trigger;
  let found = null;
  const keys = P.ownKeys(exported);
  for (let i = 0; i < keys.length; i++) {
    const key = keys[i];
    if (typeof key !== 'string' || P.regExpExec(HANDLER, key) === null || typeof exported[key] !== 'function') continue;
    if (key === named) return exported[key];
    if (found === null || (P.regExpExec(EXECUTE, key) !== null && P.regExpExec(EXECUTE, found) === null)) found = key;
  }
  return found === null ? null : exported[found];
}

// cache of api.cache: the container's, so the tenant's.
const cache = P.newMap();
const CACHE_ENTRIES = 1000;

function cacheApi() {
  return {
    get(key) {
      const entry = cache.get(`${key}`);
      if (entry === undefined) return undefined;
      if (entry.expires_at > Date.now()) return { ...entry };
      cache.delete(`${key}`);
      return undefined;
    },
    set(key, value, options) {
      const expires = Math.min(
        options?.expires_at ?? Infinity,
        Date.now() + Math.min(options?.ttl ?? 86400000, 86400000),
      );
      if (cache.size >= CACHE_ENTRIES && !cache.has(`${key}`)) return { type: 'error', code: 'ITEM_SIZE_EXCEEDED' };
      cache.set(`${key}`, { value: `${value}`, expires_at: expires });
      return { type: 'success', record: { value: `${value}`, expires_at: expires } };
    },
    delete(key) {
      return cache.delete(`${key}`) ? { type: 'success' } : { type: 'error', code: 'CACHE_KEY_DOES_NOT_EXIST' };
    },
  };
}

function redirectApi(event, api, note) {
  return {
    sendUserTo(url, options) {
      const target = new URL(url);
      const query = options?.query ?? {};
      for (const name of Object.keys(query)) target.searchParams.set(name, query[name]);
      return note('redirect.sendUserTo', [url, options], (out) => {
        out.redirect = { url: target.toString() };
      });
    },
    encodeToken({ secret, payload, expiresInSeconds }) {
      const now = Math.floor(Date.now() / 1000);
      const base = {
        iss: event.request?.hostname,
        sub: event.user?.user_id,
        iat: now,
        exp: now + (expiresInSeconds ?? 900),
      };
      return tokens().sign({ ...base, ip: event.request?.ip, ...payload }, secret);
    },
    validateToken({ secret, tokenParameterName = 'session_token' }) {
      const token = event.request?.query?.[tokenParameterName] ?? event.request?.body?.[tokenParameterName];
      if (token === undefined) throw new Error(`There is no parameter called '${tokenParameterName}' in the request`);
      const claims = tokens().verify(token, secret);
      if (event.user?.user_id !== undefined && claims.sub !== event.user.user_id)
        throw new Error('The token belongs to another user');
      return claims;
    },
  };
}

// makeApi returns the api object; effects gather in out.
function makeApi(call, event, out) {
  const part = (name, inner) => {
    out[name] ??= {};
    if (inner !== undefined) out[name][inner] ??= {};
    return inner === undefined ? out[name] : out[name][inner];
  };
  const api = {};
  const note = (method, args, apply) => {
    P.arrayPush(out.commands, [method, ...args]);
    apply(out);
    return api;
  };
  const scopes = (list, name) => {
    P.arrayPush((part('accessToken')[list] ??= []), name);
  };
  return Object.assign(api, {
    access: {
      deny: (reason, text) =>
        note('access.deny', text === undefined ? [reason] : [reason, text], () => {
          out.access = { denied: true, reason: `${text ?? reason ?? ''}` };
          call.deny(out.access.reason);
        }),
    },
    idToken: {
      setCustomClaim: (name, value) =>
        note('idToken.setCustomClaim', [name, value], () => {
          part('idToken', 'claims')[name] = value;
        }),
    },
    accessToken: {
      setCustomClaim: (name, value) =>
        note('accessToken.setCustomClaim', [name, value], () => {
          part('accessToken', 'claims')[name] = value;
        }),
      addScope: (name) => note('accessToken.addScope', [name], () => scopes('addScopes', name)),
      removeScope: (name) => note('accessToken.removeScope', [name], () => scopes('removeScopes', name)),
    },
    user: {
      setUserMetadata: (key, value) =>
        note('user.setUserMetadata', [key, value], () => {
          part('user', 'user_metadata')[key] = value;
        }),
      setAppMetadata: (key, value) =>
        note('user.setAppMetadata', [key, value], () => {
          part('user', 'app_metadata')[key] = value;
        }),
    },
    multifactor: {
      enable: (provider, options) =>
        note('multifactor.enable', [provider, options], () => {
          out.multifactor = { provider, options };
        }),
    },
    redirect: redirectApi(event, api, note),
    cache: cacheApi(),
    authentication: {
      setPrimaryUser: (id) =>
        note('authentication.setPrimaryUser', [id], () => {
          part('authentication').primaryUser = id;
        }),
    },
    samlResponse: samlApi(note, part),
  });
}

// samlApi answers to every set…: setAttribute(name, value) collects attributes, the others one value each.
function samlApi(note, part) {
  return new Proxy(
    {},
    {
      get(_, method) {
        if (typeof method !== 'string' || method.slice(0, 3) !== 'set') return undefined;
        return (...args) =>
          note(`samlResponse.${method}`, args, () => {
            const name = method[3].toLowerCase() + method.slice(4);
            if (name === 'attribute') part('samlResponse', 'attributes')[args[0]] = args[1];
            else part('samlResponse')[name] = args[0];
          });
      },
    },
  );
}

// runAction starts the handler and returns {promise, result}. The input is the event, or {event}.
function runAction(call, handler) {
  if (handler === null) throw new AgentError('SyntaxError', 'The action has no handler for this trigger.', 'ERR_SHAPE');
  const input = isObject(call.input) ? call.input : {};
  const event = isObject(input.event) ? input.event : input;
  event.secrets = call.head.secrets ?? {};
  const out = call.effects ?? { commands: [] };
  const returned = handler(event, makeApi(call, event, out));
  return {
    promise: P.isPromise(returned) ? returned : new P.Promise((resolve) => resolve(returned)),
    result: () => out,
  };
}

module.exports = { runAction, handlerOf };
