// Answers an HTTP request with a head that means to take the connection over.
module.exports = async (ctx, req, res) => {
  const input = JSON.parse(new URL(req.url, 'http://x').searchParams.get('input'));
  const fd = linkFD();
  const own = input.stream;
  const head = (status, headers) => frame(TYPE.HEAD, 0, own, withHead({ status, headers }));
  const end = Buffer.concat([frame(TYPE.DATA, END, own, Buffer.from('body')), frame(TYPE.RESULT, END | SETTLED, own, withHead(''))]);
  const kinds = {
    crlf: () => head(200, [['X-A', 'a\r\nX-Injected: 1\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad'], ['X-B\r\nX-Injected', '1'], ['X-C', 'ok\nX-Injected: 1'], ['X-D: x\r\nX-Injected', '1'], ['X-Nul', 'a\u0000b']]),
    encoding: () => head(200, [['Transfer-Encoding', 'chunked'], ['Content-Length', '99999'], ['Content-Length', '1'], ['Connection', 'keep-alive, x-a'], ['Upgrade', 'h2c'], ['Trailer', 'X-T'], ['Keep-Alive', 'timeout=9']]),
    length: () => head(200, [['Content-Length', '1']]),
    'status 99': () => head(99, []),
    'status 101': () => head(101, [['Upgrade', 'websocket'], ['Connection', 'Upgrade']]),
    'status 1000': () => head(1000, []),
    'no status': () => head(undefined, []),
    reserved: () => head(200, [['Paddock-Error', 'ok'], ['Paddock-Tenant', 'canary'], ['paddock-call-id', 'forged'], ['Set-Cookie', 'a=b'], ['Access-Control-Allow-Origin', '*'], ['Server-Timing', 'x'],
      ['Strict-Transport-Security', 'max-age=9'], ['Grpc-Status', '0'], ['X-Accel-Redirect', '/etc/passwd'], ['Clear-Site-Data', '"*"'], ['X-Plain', 'stays']]),
    many: () => head(200, Array.from({ length: 2000 }, (_, i) => [`X-H${i}`, 'v'])),
  };
  send(fd, kinds[input.how]());
  send(fd, end);
  await sleep(2000);
};
