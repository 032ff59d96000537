// Follows a redirect from where it may go to where it may not.
module.exports = async (input) => {
  const follow = async (to, redirect = 'follow') => {
    const res = await fetch(`http://127.0.0.1:${input.allowed}/redirect?to=${encodeURIComponent(to)}`, { redirect });
    return `${res.status} ${await res.text()}`;
  };
  must('where it may go', (await follow('', 'manual')).startsWith('200 '));
  for (const to of [`http://127.0.0.1:${input.port}/`, 'http://169.254.169.254/latest/meta-data/', `http://localhost:${input.port}/`, `https://127.0.0.1:${input.port}/`,
    'file:///etc/passwd', 'ftp://127.0.0.1/', 'gopher://127.0.0.1:70/', `http://127.0.0.1:${input.router}/v1/tenants`]) await refused(to, () => follow(to));
  return report;
};
