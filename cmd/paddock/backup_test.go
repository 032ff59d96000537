package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// A backup of a running service and one of the stopped one, restored on a machine where nothing is: keys open, functions run with
// their secrets, pipelines too, and nothing of the former life's sandboxes is believed.
func TestBackupAndRestore(t *testing.T) {
	a := newSite(t, "oci", "runc")
	a.start()
	a.cli("tenants", "create", "acme").want(t, 0, "", "")
	key := strings.TrimSpace(a.cli("keys", "create", "--tenant", "acme", "--role", "invoke").want(t, 0, "pdk_", "").out)
	key = regexp.MustCompile(`pdk_\S+`).FindString(key)
	a.cliAs(nil, "xyzzy", "secrets", "set", "WORD", "-", "--tenant", "acme").want(t, 0, "", "")
	a.cli("deploy", source(t, `module.exports = (input, ctx) => ctx.secrets.WORD + input.n`), "--name", "word", "--tenant", "acme").want(t, 0, "", "")
	dir := t.TempDir()
	pipeline := filepath.Join(dir, "login")
	for name, text := range map[string]string{
		"pipeline.yaml": "name: login\nkind: rule\nsteps: [{file: greet.js}]\n",
		"greet.js":      "function (user, context, callback) { user.greeting = 'hello ' + user.name; callback(null, user, context); }\n",
	} {
		writeInto(t, pipeline, name, text)
	}
	a.cli("publish", pipeline, "--tenant", "acme").want(t, 0, "", "")
	a.cli("invoke", "word", "--input", `{"n":1}`, "--tenant", "acme").want(t, 0, "xyzzy1", "")

	secret := filepath.Join(dir, "passphrase")
	writeInto(t, dir, "passphrase", "correct horse battery\n")
	running, stopped := filepath.Join(dir, "running"), filepath.Join(dir, "stopped")
	a.cli("backup", running, "--data-dir", a.data, "--passphrase-file", secret).want(t, 0, "pieces of code", "")
	a.cli("backup", running, "--data-dir", a.data).want(t, exitPlatform, "", "is there already")
	former := a.id()
	a.stop(syscall.SIGTERM)
	a.cli("backup", stopped, "--data-dir", a.data).want(t, 0, "pieces of code", "not encrypted")

	b := newSite(t, "oci", "runc")
	b.cli("backup", filepath.Join(dir, "none"), "--data-dir", b.data).want(t, exitUsage, "", "holds nothing of")
	b.cli("restore", running, "--data-dir", b.data).want(t, exitUsage, "", "--passphrase-file")
	b.cli("restore", secret, "--data-dir", b.data).want(t, exitUsage, "", "no backup")
	b.cli("restore", stopped, "--data-dir", a.data).want(t, exitUsage, "", "is not empty")
	b.cli("restore", stopped, "--data-dir", b.data, "--secrets", dir).want(t, exitUsage, "", "--etcd-endpoints")
	whole, err := os.ReadFile(stopped)
	if err != nil {
		t.Fatal(err)
	}
	writeInto(t, dir, "short", string(whole[:len(whole)-5000]))
	b.cli("restore", filepath.Join(dir, "short"), "--data-dir", b.data).want(t, exitUsage, "", "cut short")
	if _, err := os.Stat(b.data); err == nil {
		t.Error("a restore that was refused has made something")
	}

	b.cli("restore", running, "--data-dir", b.data, "--passphrase-file", secret).want(t, 0, "restored the backup", "")
	b.cli("restore", stopped, "--data-dir", b.data).want(t, exitUsage, "", "is not empty")
	b.start()
	if b.id() == former {
		t.Error("the restored service takes itself for the former one")
	}
	as := map[string]string{"PADDOCK_URL": b.HTTP, "PADDOCK_KEY": key}
	b.cliAs(as, "", "invoke", "word", "--input", `{"n":2}`).want(t, 0, "xyzzy2", "")
	b.cli("invoke", "login", "--pipeline", "--input", `{"user":{"name":"Ada"},"context":{}}`, "--tenant", "acme").want(t, 0, "hello Ada", "")
	b.cli("tenants", "list").want(t, 0, "acme", "")
	b.cli("deploy", source(t, `module.exports = () => "new"`), "--name", "word", "--tenant", "acme").want(t, 0, "", "")
	b.cliAs(as, "", "invoke", "word").want(t, 0, "new", "")
	b.stop(syscall.SIGTERM)
}

func writeInto(t *testing.T, dir, name, text string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
