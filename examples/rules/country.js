function countryOfRequest(user, context, callback) {
  // Notes where a login comes from, and refuses it from countries that the company may not serve.
  const geoip = (context.request && context.request.geoip) || {};
  const country = geoip.country_code || 'unknown';
  const refused = (configuration.REFUSED_COUNTRIES || '').split(',');

  if (refused.indexOf(country) !== -1) {
    console.warn('login refused from', country);
    return callback(new UnauthorizedError('This service is not available in your country.'));
  }
  context.idToken = context.idToken || {};
  context.idToken['https://acme.example/country'] = country;
  if (geoip.time_zone) context.idToken['https://acme.example/time_zone'] = geoip.time_zone;
  callback(null, user, context);
}
