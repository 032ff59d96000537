// Says what is no frame, or none that an agent may send now.
module.exports = async (input) => {
  const fd = linkFD();
  const own = input.stream;
  const length = (n) => { const b = Buffer.alloc(64); b.writeUInt32BE(n >>> 0, 0); b[4] = TYPE.RESULT; return b; };
  const kinds = {
    huge: () => length(0xffffffff),
    negative: () => length(0x80000000),
    zero: () => length(0),
    short: () => length(5),
    overlong: () => length(6 + 4 + 65536 + 65536 + 1),
    'head beyond': () => { const p = Buffer.alloc(8); p.writeUInt32BE(0xfffffff0, 0); return frame(TYPE.RESULT, END, own, p); },
    'no head': () => frame(TYPE.RESULT, END, own, Buffer.alloc(2)),
    'bad json': () => frame(TYPE.RESULT, END, own, withHead('{"outcome":')),
    'array head': () => frame(TYPE.RESULT, END, own, withHead('[1]')),
    'deep json': () => frame(TYPE.RESULT, END, own, withHead('{"error":' + '['.repeat(30000) + ']'.repeat(30000) + '}')),
    'wrong types': () => frame(TYPE.RESULT, END, own, withHead('{"outcome":{"a":1},"cpu":"x"}')),
    'unknown outcome': () => frame(TYPE.RESULT, END, own, withHead('{"outcome":"great"}')),
    'unknown type': () => frame(99, 0, own),
    'type zero': () => frame(0, 0, own),
    'unknown flag': () => result(own, '1', 0x80 | END),
    'of the host': () => frame(TYPE.INVOKE, END, 77, withHead({ id: 'x' }, '1')),
    welcome: () => frame(TYPE.WELCOME, 0, 0, withHead({ protocol: 1 })),
    'hello again': () => frame(TYPE.HELLO, 0, 0, withHead({ protocol: 1, runtime: 'node', version: 'v1', agent: 'x', reconnects: 0 })),
    pong: () => frame(TYPE.PONG, 0, 0, Buffer.alloc(8)),
    'loaded unasked': () => frame(TYPE.LOADED, 0, own, withHead({ hash: 'x' })),
    'window overflow': () => { const w = Buffer.alloc(4, 255); return Buffer.concat([frame(TYPE.WINDOW, 0, own, w), frame(TYPE.WINDOW, 0, own, w), frame(TYPE.WINDOW, 0, own, w)]); },
    'cancelled unasked': () => frame(TYPE.RESULT, END, own, withHead({ outcome: 'cancelled' })),
    'data first': () => frame(TYPE.DATA, 0, own, Buffer.from('x')),
    'settled first': () => frame(TYPE.SETTLED, 0, own),
    'status 101': () => frame(TYPE.HEAD, 0, own, withHead({ status: 101, headers: [] })),
    'log flood': () => Buffer.concat(Array(64).fill(frame(TYPE.LOG, 0, 0, withHead({ level: 'info', t: 1 }, 'x'.repeat(65000))))),
    'log level': () => frame(TYPE.LOG, 0, 0, withHead({ level: 'fatal', t: 1 }, 'x')),
    random: () => require('crypto').randomBytes(1 << 16),
    text: () => Buffer.from('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'.repeat(100)),
  };
  send(fd, kinds[input.how]());
  await sleep(2000);
  return 'not noticed';
};
