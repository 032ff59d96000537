// What several attacks share; it stands before each of them.
const fs = require('fs');
const child = require('child_process');
const report = { held: [], broken: [], facts: {} };

// refused runs what must fail. A success is a hole; so is a failure of another kind than codes, where they are given.
async function refused(name, attack, ...codes) {
  let got;
  try {
    got = await attack();
  } catch (e) {
    const code = String((e && (e.code || e.name)) || e);
    if (codes.length > 0 && !codes.includes(code)) report.broken.push(`${name}: ${code}: ${e && e.message}`);
    else report.held.push(`${name}: ${code}`);
    return;
  }
  report.broken.push(`${name}: ${typeof got === 'object' ? JSON.stringify(got) : got}`.slice(0, 500));
}

// must says what has to be true.
function must(name, truth, detail) {
  (truth ? report.held : report.broken).push(detail === undefined ? name : `${name}: ${detail}`);
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// node starts another process with a script, without the agent's preload.
const node = (script, options) => child.spawn(process.execPath, ['-e', script], { stdio: 'ignore', env: { PATH: '/paddock/bin' }, ...options });

// nodeSync runs a script to its end and returns what it printed.
function nodeSync(script, ...args) {
  const run = child.spawnSync(process.execPath, ['-e', script, ...args], { env: { PATH: '/paddock/bin', HOME: '/tmp' }, timeout: 20000, maxBuffer: 1 << 24 });
  return { out: String(run.stdout), err: String(run.stderr), status: run.status, signal: run.signal };
}

// crash ends a process by a native fault.
const CRASH = `require('v8').setFlagsFromString('--allow-natives-syntax'); new Function('%SystemBreak()')()`;
const crash = () => new Function('require', CRASH)(require);

// The link's protocol, as far as forging needs it.
const TYPE = { HELLO: 1, WELCOME: 2, LOAD: 3, LOADED: 4, LOAD_FAILED: 5, NOT_LOADED: 6, INVOKE: 7, DATA: 8, WINDOW: 9, HEAD: 10,
  STEP: 11, RESULT: 12, SETTLED: 13, LOG: 14, CANCEL: 15, PING: 16, PONG: 17 };
const END = 1, SETTLED = 2;

function frame(type, flags, stream, payload = Buffer.alloc(0)) {
  const b = Buffer.alloc(10 + payload.length);
  b.writeUInt32BE(6 + payload.length, 0);
  b[4] = type;
  b[5] = flags;
  b.writeUInt32BE(stream >>> 0, 6);
  payload.copy(b, 10);
  return b;
}

function withHead(head, body = '') {
  const h = Buffer.from(typeof head === 'string' ? head : JSON.stringify(head));
  const size = Buffer.alloc(4);
  size.writeUInt32BE(h.length, 0);
  return Buffer.concat([size, h, Buffer.from(body)]);
}

const result = (stream, value, flags = END | SETTLED, head = '') => frame(TYPE.RESULT, flags, stream, withHead(head, value));

// linkFD finds the descriptor of the agent's connection: the only socket there is.
function linkFD() {
  for (const name of fs.readdirSync('/proc/self/fd')) {
    try {
      if (fs.readlinkSync(`/proc/self/fd/${name}`).startsWith('socket:')) return +name;
    } catch {}
  }
  throw new Error('no socket is open');
}

// send writes bytes to a descriptor, all of them, waiting as long as it takes.
function send(fd, bytes) {
  for (let at = 0; at < bytes.length; ) {
    try {
      at += fs.writeSync(fd, bytes, at, bytes.length - at);
    } catch (e) {
      if (e.code !== 'EAGAIN') throw e;
    }
  }
}


// askProxy sends text to the egress proxy and returns the beginning of what it says.
const askProxy = (text, wait = 700) => new Promise((resolve) => {
  const s = require('net').connect('/run/paddock/egress');
  let got = '';
  const timer = setTimeout(() => s.destroy(), wait);
  s.on('data', (d) => { got += d.toString('latin1'); if (got.includes('\r\n\r\n')) s.destroy(); });
  s.on('error', () => {});
  s.on('close', () => { clearTimeout(timer); resolve(got); });
  s.write(text);
});

// refusedByProxy wants every one of these requests to lead nowhere.
async function refusedByProxy(tries) {
  for (let i = 0; i < tries.length; i += 16) {
    await Promise.all(tries.slice(i, i + 16).map(async (text) => {
      const answer = await askProxy(text);
      must(JSON.stringify(text.slice(0, 80)), !/^HTTP\/1\.\d 2/.test(answer), answer.split('\r\n')[0]);
    }));
  }
}
