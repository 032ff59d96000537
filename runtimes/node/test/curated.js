'use strict';
// Installs the curated modules for the tests, once per package-lock.json, into the user's cache.

const { execFileSync } = require('node:child_process');
const crypto = require('node:crypto');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

// curated returns the directory whose node_modules holds them.
function curated() {
  const here = path.join(__dirname, '..');
  const lock = fs.readFileSync(path.join(here, 'package-lock.json'));
  const base = process.env.XDG_CACHE_HOME ?? path.join(os.homedir(), '.cache');
  const dir = path.join(
    base,
    'paddock-test',
    `node-modules-${crypto.createHash('sha256').update(lock).digest('hex').slice(0, 12)}`,
  );
  if (fs.existsSync(dir)) return dir;
  const scratch = `${dir}.${process.pid}`;
  fs.mkdirSync(scratch, { recursive: true });
  for (const name of ['package.json', 'package-lock.json'])
    fs.copyFileSync(path.join(here, name), path.join(scratch, name));
  execFileSync('npm', ['ci', '--ignore-scripts', '--omit=dev', '--no-audit', '--no-fund', '--no-bin-links'], {
    cwd: scratch,
    stdio: 'pipe',
  });
  try {
    fs.renameSync(scratch, dir);
  } catch (e) {
    if (!fs.existsSync(dir)) throw e;
    fs.rmSync(scratch, { recursive: true }); // another test process was faster
  }
  return dir;
}

module.exports = { curated };
