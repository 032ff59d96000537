exports.onExecutePostLogin = async (event, api) => {
  // Refuses logins from countries that the company may not serve, and notes the others.
  const country = event.request.geoip?.countryCode ?? 'unknown';
  if ((event.secrets.REFUSED_COUNTRIES ?? '').split(',').includes(country)) {
    api.access.deny('This service is not available in your country.');
    return;
  }
  api.idToken.setCustomClaim('https://acme.example/country', country);
};
