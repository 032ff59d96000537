// An HTTP-shaped function: it sees the request and writes the response itself, a line every 20 ms.
module.exports = async (ctx, req, res) => {
  const name = new URL(req.url, 'http://localhost').searchParams.get('name') || 'stranger';
  res.writeHead(200, { 'content-type': 'text/plain' });
  for (let i = 1; i <= 3; i++) {
    res.write(`${i}: hello ${name}\n`);
    await new Promise((done) => setTimeout(done, 20));
  }
  res.end();
};
