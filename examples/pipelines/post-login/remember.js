exports.onExecutePostLogin = async (event, api) => {
  // Counts logins in the profile; what it cannot count does not stop a login.
  const { logins = 0 } = event.user.app_metadata;
  api.user.setAppMetadata('logins', logins + 1).accessToken.setCustomClaim('https://acme.example/logins', logins + 1);
};
