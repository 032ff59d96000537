function (user, context, callback) {
  // Adds the roles that this application understands to the id token, and refuses unverified addresses.
  const namespace = 'https://acme.example/';
  const roles = (user.app_metadata && user.app_metadata.roles) || [];

  if (!user.email_verified) {
    return callback(new UnauthorizedError('Please verify your email before logging in.'));
  }

  user.user_metadata = user.user_metadata || {};
  user.user_metadata.last_login_ip = context.request.ip;

  context.idToken = context.idToken || {};
  context.idToken[namespace + 'roles'] = roles.length ? roles : ['customer'];
  context.idToken[namespace + 'domain'] = user.email.split('@')[1].toLowerCase();

  console.log('claims added for', user.user_id);
  callback(null, user, context);
}
