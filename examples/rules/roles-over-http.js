async function rolesFromWarehouse(user, context, callback) {
  // Roles live in a database behind an HTTP query service.
  const axios = require('axios');

  try {
    const { data } = await axios.post(configuration.API_URL + '/query', {
      sql: 'SELECT role FROM memberships WHERE email = ? AND revoked_at IS NULL ORDER BY role',
      parameters: [user.email.toLowerCase()],
    }, { headers: { 'X-Api-Key': configuration.API_TOKEN }, timeout: 5000 });

    const roles = data.rows.map((row) => row[0]);
    if (roles.length === 0) return callback(new UnauthorizedError('You are not a member of any team.'));
    context.idToken = context.idToken || {};
    context.idToken['https://acme.example/roles'] = roles;
    callback(null, user, context);
  } catch (err) {
    callback(new Error('role lookup failed: ' + (err.response ? err.response.status : err.message)));
  }
}
