'use strict';
// The globals that rules may count on. What belongs to a run (configuration, auth0) is found through the async context,
// so that runs at the same time keep their own; actions see none of it. Free names of old templates load their module
// at first use.

const P = require('./primordials.js');
const modules = require('./modules.js');

const { settingsOf } = require('./context.js');
const { UnauthorizedError } = require('./errors.js');

const { fetch: nativeFetch } = globalThis;

// auth0 is the restricted management client of a run. Its address and token are settings or secrets of the tenant.
function makeAuth0(call) {
  const setting = (name) => call.head.secrets?.[`auth0.${name}`] ?? call.head.config?.[`auth0.${name}`] ?? '';
  const domain = setting('domain');
  const baseUrl = domain === '' ? '' : `https://${domain}/api/v2`;
  const accessToken = setting('accessToken');
  const update = (field) => async (id, data) => {
    if (domain === '') throw new Error('auth0.users: the settings auth0.domain and auth0.accessToken are not there');
    const response = await nativeFetch(`${baseUrl}/users/${encodeURIComponent(id)}`, {
      method: 'PATCH',
      headers: { authorization: `Bearer ${accessToken}`, 'content-type': 'application/json' },
      body: P.jsonStringify({ [field]: data }),
    });
    if (response.ok) return response.json();
    const error = new Error(`auth0.users: ${response.status} ${await response.text()}`);
    error.statusCode = response.status;
    throw error;
  };
  return {
    accessToken,
    domain,
    baseUrl,
    users: { updateUserMetadata: update('user_metadata'), updateAppMetadata: update('app_metadata') },
  };
}

// Free names → module.
const LAZY = P.freeze({
  __proto__: null,
  _: 'lodash',
  jwt: 'jsonwebtoken',
  request: 'request',
  uuid: 'uuid',
  async: 'async',
  ipaddr: 'ipaddr.js',
  xmldom: 'xmldom',
  xpath: 'xpath',
  querystring: 'querystring',
  url: 'url',
});

// replaceable defines a global that tenant code may overwrite, as it may any other.
function replaceable(name, get) {
  P.defineProperty(globalThis, name, {
    configurable: true,
    enumerable: false,
    get,
    set(value) {
      P.defineProperty(globalThis, name, { value, writable: true, configurable: true, enumerable: true });
    },
  });
}

// install defines the globals. current() is the call of the running code, or undefined.
function install(current) {
  // What is assigned to them does not outlive the run.
  const perRun = (name, make) =>
    P.defineProperty(globalThis, name, {
      configurable: true,
      get() {
        const call = current();
        if (call === undefined || call.globals === 'action') return undefined;
        call.scratch ??= { __proto__: null };
        return (call.scratch[name] ??= make(call));
      },
      set(value) {
        const call = current();
        if (call !== undefined) (call.scratch ??= { __proto__: null })[name] = value;
      },
    });
  perRun('configuration', settingsOf);
  perRun('auth0', makeAuth0);
  // Nothing that a rule does may keep another one from denying access.
  P.defineProperty(globalThis, 'UnauthorizedError', {
    configurable: false,
    get: () => (current()?.globals === 'action' ? undefined : UnauthorizedError),
    set() {},
  });
  for (const name of Object.keys(LAZY)) {
    if (!(name in globalThis)) replaceable(name, () => modules.require(LAZY[name]));
  }
  // Old rules mean the module by crypto, which has all that the global of the same name has.
  const web = Object.getOwnPropertyDescriptor(globalThis, 'crypto').get; // loads much: only when asked
  replaceable('crypto', () => (current()?.globals === 'rule' ? require('node:crypto') : P.apply(web, globalThis, [])));
}

module.exports = { install };
