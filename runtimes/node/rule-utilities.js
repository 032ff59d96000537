'use strict';
// @auth0/rule-utilities, which is on no registry: what rules of the public templates use of it. ProgressiveProfile-like
// flows need a redirect with a signed token; nothing else is here.

const crypto = require('node:crypto');

const base64url = (data) => Buffer.from(data).toString('base64url');

function sign(payload, secret) {
  const text = base64url(JSON.stringify({ alg: 'HS256', typ: 'JWT' })) + '.' + base64url(JSON.stringify(payload));
  return text + '.' + crypto.createHmac('sha256', secret).update(text).digest('base64url');
}

function verify(token, secret) {
  const parts = String(token).split('.');
  if (parts.length !== 3) throw new Error('the token is malformed');
  const header = JSON.parse(Buffer.from(parts[0], 'base64url'));
  if (header.alg !== 'HS256') throw new Error(`the token's algorithm ${header.alg} is not accepted`);
  const want = crypto
    .createHmac('sha256', secret)
    .update(parts[0] + '.' + parts[1])
    .digest();
  const have = Buffer.from(parts[2], 'base64url');
  if (want.length !== have.length || !crypto.timingSafeEqual(want, have))
    throw new Error("the token's signature is wrong");
  const payload = JSON.parse(Buffer.from(parts[1], 'base64url'));
  const now = Math.floor(Date.now() / 1000);
  if (payload.exp !== undefined && payload.exp <= now) throw new Error('the token has expired');
  if (payload.nbf !== undefined && payload.nbf > now) throw new Error('the token is not valid yet');
  return payload;
}

// Auth0RedirectRule drives a redirect and back: isRedirect, queryParams, createSessionToken, validateSessionToken, do.
class Auth0RedirectRule {
  constructor(user, context, configuration) {
    const missing = ['SESSION_TOKEN_SECRET'].filter((key) => !configuration[key]);
    if (missing.length > 0) throw new Error(`Missing required configuration: ${missing.join(', ')}`);
    this.user = user;
    this.context = context;
    this.secret = configuration.SESSION_TOKEN_SECRET;
    this.expiresIn = Number(configuration.SESSION_TOKEN_EXPIRES_IN) || 259200;
  }

  get isRedirectCallback() {
    return this.context.protocol === 'redirect-callback';
  }

  get queryParams() {
    return { ...this.context.request?.body, ...this.context.request?.query };
  }

  get canRedirect() {
    const cannot = ['oauth2-resource-owner', 'oauth2-refresh-token', 'oauth2-password', 'delegation'];
    return (
      !this.context.redirect &&
      !cannot.includes(this.context.protocol) &&
      !(this.context.request?.query?.prompt === 'none')
    );
  }

  createSessionToken(claims) {
    const now = Math.floor(Date.now() / 1000);
    const base = { iss: this.context.request?.hostname, sub: this.user.user_id, iat: now, exp: now + this.expiresIn };
    return sign({ ...base, ip: this.context.request?.ip, ...claims }, this.secret);
  }

  validateSessionToken() {
    const token = this.queryParams.session_token ?? this.queryParams.token;
    if (!token) throw new Error('the session token is missing');
    const claims = verify(token, this.secret);
    if (claims.sub !== this.user.user_id) throw new Error('the session token belongs to another user');
    return claims;
  }

  doRedirect(url, claims) {
    const target = new URL(url);
    target.searchParams.set('session_token', this.createSessionToken(claims));
    this.context.redirect = { url: target.toString() };
  }

  do(url, claims) {
    this.doRedirect(url, claims);
  }
}

module.exports = { Auth0RedirectRule, sign, verify };
