function (user, context, callback) {
  // Only people of the listed domains may log in, and partners to the applications that say so.
  const allowed = (configuration.ALLOWED_DOMAINS || '').split(',').map((d) => d.trim().toLowerCase()).filter(Boolean);
  const domain = String(user.email || '').split('@').pop().toLowerCase();
  const partners = context.clientMetadata && context.clientMetadata.partners === 'yes';

  if (allowed.includes(domain) || (partners && user.email_verified)) {
    return callback(null, user, context);
  }
  return callback(new UnauthorizedError('Access is limited to employees.'));
}
