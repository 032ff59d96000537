package main

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"paddock/internal/testenv"
)

// keeping captures a secret as its module is evaluated, says it in its log and in its errors, and answers with hashes.
const keeping = `
const { createHash } = require('crypto');
const captured = module.webtask.secrets.KEY;
const hash = (v) => v === undefined ? null : createHash('sha256').update(v).digest('hex');
module.exports = async (input, ctx) => {
  globalThis.n = (globalThis.n || 0) + 1;
  console.log('the key is', ctx.secrets.KEY, { own: ctx.secrets.OWN }, 'CODE-CANARY'.length);
  console.error(ctx.configuration, ctx.data.KEY);
  if (input.fail) throw new Error('refused: ' + ctx.secrets.KEY + ' ' + ctx.secrets.OWN);
  return [globalThis.n, hash(captured), hash(ctx.secrets.KEY), hash(ctx.secrets.OWN)];
}`

// TestSecretsStayInside plants secrets, code and inputs, runs calls, and then looks for them in everything that the service
// and the machine show or keep.
func TestSecretsStayInside(t *testing.T) {
	for _, e := range []struct{ engine, isolation string }{{"oci", "runc"}, {"oci", "gvisor"}, {"docker", "runc"}} {
		t.Run(e.engine+"-"+e.isolation, func(t *testing.T) {
			s := newSite(t, e.engine, e.isolation)
			s.start()
			canaries := map[string]string{}
			for _, what := range []string{"first", "second", "own", "code", "input"} {
				canaries[what] = what + "-canary-" + rand.Text()
			}
			said := useSecrets(t, s, canaries)
			s.search(canaries, said)
			s.stop(syscall.SIGTERM)
			s.searchFiles(canaries)
			if left := s.leftovers(); len(left) > 0 {
				t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
			}
		})
	}
}

// TestSecretsOfBeforeAreWithheld: what a call left running goes on saying its secret after the service was started again, which does
// not know that secret before the next call, and of other functions not then either.
func TestSecretsOfBeforeAreWithheld(t *testing.T) {
	s := newSite(t, "oci", "runc", "--min-ready", "1")
	s.start()
	secret := "before-canary-" + rand.Text()
	s.cliAs(nil, secret, "secrets", "set", "KEY", "-").want(t, 0, "KEY is set", "")
	const ticking = `module.exports = (input, ctx) => { setInterval(() => console.log('still ' + ctx.secrets.KEY), 50).unref(); return 1 }`
	s.cliAs(nil, ticking, "deploy", "-", "--name", "ticking").want(t, 0, "ticking@1", "")
	s.cliAs(nil, "module.exports = () => 2", "deploy", "-", "--name", "other").want(t, 0, "other@1", "")
	s.cli("invoke", "ticking").want(t, 0, "1", "")
	says := func(what string) {
		t.Helper()
		testenv.Await(t, what, func() bool {
			r := s.cli("logs", "--lines", "1000").want(t, 0, "", "")
			if strings.Contains(r.out, secret) {
				t.Fatalf("the secret is in the log:\n%s", r.out)
			}
			return strings.Contains(r.out, what)
		})
	}
	says("still [secret]")
	s.stop(syscall.SIGUSR2)
	s.start()
	says("[withheld: ")
	s.cli("invoke", "other").want(t, 0, "2", "")
	s.cli("invoke", "ticking").want(t, 0, "1", "")
	says("still [secret]")
	s.stop(syscall.SIGTERM)
}

// useSecrets runs calls of a function with secrets, changes and rotates them, and returns all that the commands said.
func useSecrets(t *testing.T, s *site, canaries map[string]string) string {
	var said strings.Builder
	cli := func(stdin string, args ...string) result {
		r := s.cliAs(nil, stdin, args...)
		said.WriteString(r.out + r.stderr)
		return r
	}
	file := filepath.Join(t.TempDir(), "value")
	if err := os.WriteFile(file, []byte(canaries["own"]+"\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cli(canaries["first"]+"\n", "secrets", "set", "KEY", "-").want(t, 0, "KEY is set (all functions, revision 1)", "")
	cli("by pipe\n", "secrets", "set", "OWN", "--function", "keeping", "--value-file", "-").want(t, 0, "OWN is set", "")
	cli("", "secrets", "rm", "OWN", "--function", "keeping").want(t, 0, "", "")
	cli("", "secrets", "set", "OWN", "--function", "keeping", "--value-file", file).want(t, 0, "OWN is set (function keeping, revision 4)", "")
	cli("", "secrets").want(t, 0, "function keeping", "")
	r := cli("", "secrets", "set", "KEY", canaries["first"]).want(t, exitUsage, "", "never an argument")
	if strings.Contains(r.stderr, canaries["first"]) {
		t.Error("a value given as an argument is repeated")
	}
	cli("", "secrets", "set", "KEY").want(t, exitUsage, "", "no terminal")
	cli(strings.Repeat("x", 65537), "secrets", "set", "KEY", "-").want(t, exitUsage, "", "at most 65536")

	code := strings.ReplaceAll(keeping, "CODE-CANARY", canaries["code"])
	cli(code, "deploy", "-", "--name", "keeping").want(t, 0, "keeping@1", "")
	input := func(fail bool) string {
		return `{"fail":` + strconv.FormatBool(fail) + `,"text":"` + canaries["input"] + `"}`
	}
	hash := func(what string) string {
		sum := sha256.Sum256([]byte(canaries[what]))
		return hex.EncodeToString(sum[:])
	}
	invoke := func(n int, key string) {
		t.Helper()
		r := cli("", "invoke", "keeping", "--input", input(false)).want(t, 0, "", "the key is [secret]")
		var got []any
		if err := json.Unmarshal([]byte(r.out), &got); err != nil || len(got) != 4 || got[0] != float64(n) || got[1] != hash(key) ||
			got[2] != hash(key) || got[3] != hash("own") {
			t.Errorf("call %d with the %s value: %s (%v)", n, key, r.out, err)
		}
	}
	invoke(1, "first")
	invoke(2, "first")
	cli("", "invoke", "keeping", "--input", input(true)).want(t, exitUser, "", "refused: [secret] [secret]")
	cli(canaries["second"], "secrets", "set", "KEY", "-").want(t, 0, "revision 5", "")
	invoke(4, "second") // in the same container, by an instance that knows nothing of the first
	cli("", "secrets", "rotate").want(t, 0, "encrypted again: 2 secrets, 1 pieces of code", "")
	cli("", "keys", "rotate-kek").want(t, 0, "wrapped again: the data keys of 1 tenant", "")
	invoke(5, "second")
	rule := `function (user, context, callback) { callback(null, { found: configuration.KEY.length, own: typeof configuration.OWN }) }`
	cli(rule, "run", "-", "--kind", "rule", "--input", `{"user":{},"context":{}}`).want(t, 0, `"found":`+strconv.Itoa(len(canaries["second"])), "")
	cli("", "logs", "--lines", "1000").want(t, 0, "the key is [secret]", "")
	cli("", "calls", "--failed").want(t, 0, "refused: [secret] [secret]", "")
	cli("", "calls", "--json").want(t, 0, "refused: [secret] [secret]", "")
	cli("", "secrets", "rm", "OWN", "--function", "keeping").want(t, 0, "OWN is gone", "")
	cli("", "invoke", "keeping", "--input", input(false)).want(t, 0, ",null]", "")
	secretsOverREST(t, s)
	return said.String()
}

// secretsOverREST sets, lists and removes a secret as a client without a library would, by role.
func secretsOverREST(t *testing.T, s *site) {
	admin := strings.TrimSpace(s.cli("keys", "create", "--role", "tenant-admin").want(t, 0, "pdk_", "").out)
	deploy := strings.TrimSpace(s.cli("keys", "create", "--role", "deploy").want(t, 0, "pdk_", "").out)
	curl := func(key string, status, says string, args ...string) {
		t.Helper()
		args = append([]string{"-s", "-w", " %{http_code}", "-H", "Authorization: Bearer " + key}, args...)
		out, err := exec.Command("curl", args...).CombinedOutput()
		if err != nil || !strings.HasSuffix(string(out), status) || !strings.Contains(string(out), says) {
			t.Errorf("curl %s: %s (%v), want %s with %q", args[5:], out, err, status, says)
		}
	}
	url := "http://" + strings.TrimPrefix(s.HTTP, "http://") + "/v1/secrets"
	curl(admin, "200", `"name":"REST"`, "-X", "PUT", url+"/REST", "-d", `{"value":"over-rest"}`)
	curl(admin, "200", `"function":"f"`, "-X", "PUT", url+"/REST", "-d", `{"value":"over-rest","function":"f"}`)
	curl(admin, "400", "secret name", "-X", "PUT", url+"/RE%20ST", "-d", `{"value":"over-rest"}`)
	curl(deploy, "403", "denied", "-X", "PUT", url+"/REST", "-d", `{"value":"over-rest"}`)
	curl(deploy, "403", "denied", url)
	curl(admin, "200", `"revision":`, url)
	curl(admin, "200", "revision", "-X", "DELETE", url+"/REST?function=f")
	curl(admin, "200", "revision", "-X", "DELETE", url+"/REST")
	curl(admin, "404", "no secret REST", "-X", "DELETE", url+"/REST")
	curl(admin, "200", "secrets", "-X", "POST", strings.TrimSuffix(url, "secrets")+"data-key/rotate", "-d", `{}`)
	curl(admin, "403", "denied", "-X", "POST", strings.TrimSuffix(url, "secrets")+"kek/rotate", "-d", `{}`)
}

// search looks for canaries while the service runs.
func (s *site) search(canaries map[string]string, said string) {
	s.t.Helper()
	s.find("what the commands said", []byte(said), canaries)
	s.find("the service's log", []byte(s.log.String()+s.out.String()), canaries)
	s.searchFiles(canaries)
	looked, inside := 0, 0
	for _, name := range []string{"environ", "cmdline"} {
		files, err := filepath.Glob("/proc/[0-9]*/" + name)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, file := range files {
			if b, err := os.ReadFile(file); err == nil {
				looked++
				s.find(file, b, canaries)
				if group, err := os.ReadFile(filepath.Join(filepath.Dir(file), "cgroup")); err == nil && bytes.Contains(group, []byte(s.id())) {
					inside++
				}
			}
		}
	}
	if looked < 20 || inside < 2 {
		s.t.Errorf("looked at %d files of processes, %d of them of the service's sandboxes", looked, inside)
	}
	s.searchDocker(canaries)
}

func (s *site) searchDocker(canaries map[string]string) {
	s.t.Helper()
	out, err := exec.Command("docker", "ps", "-aq", "--filter", "label=paddock.controller="+s.id()).Output()
	if err != nil {
		s.t.Fatal(err)
	}
	containers := strings.Fields(string(out))
	if strings.Contains(strings.Join(s.flags, " "), "--engine docker") && len(containers) == 0 {
		s.t.Error("there is no container to inspect")
	}
	for _, c := range containers {
		shown, err := exec.Command("docker", "inspect", c).CombinedOutput()
		if err != nil {
			s.t.Errorf("docker inspect: %v", err)
		}
		s.find("docker inspect", shown, canaries)
		kept, _ := exec.Command("docker", "logs", c).CombinedOutput()
		s.find("docker logs", kept, canaries)
	}
}

// searchFiles looks into every file of the data directory, the store with its write-ahead log among them, and of the run
// directory with its bundles.
func (s *site) searchFiles(canaries map[string]string) {
	s.t.Helper()
	store := 0
	for _, dir := range []string{s.data, s.run} {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			switch {
			case os.IsNotExist(err): // a container that has just gone
				return nil
			case err != nil:
				return err
			case e.IsDir() && e.Name() == "rootfs": // the image, made before there was a tenant
				return fs.SkipDir
			case !e.Type().IsRegular():
				return nil
			}
			b, err := os.ReadFile(path)
			if os.IsNotExist(err) {
				return nil
			}
			if bytes.Contains(b, []byte("/paddock/v1/secrets/")) {
				store++
			}
			s.find(path, b, canaries)
			return err
		})
		if err != nil {
			s.t.Errorf("search %s: %v", dir, err)
		}
	}
	if store == 0 {
		s.t.Error("the store's files were not among those searched")
	}
}

// find fails the test if a canary stands in b, as it is or as JSON would carry bytes.
func (s *site) find(where string, b []byte, canaries map[string]string) {
	s.t.Helper()
	for what, canary := range canaries {
		if bytes.Contains(b, []byte(canary)) || bytes.Contains(b, []byte(hex.EncodeToString([]byte(canary)))) {
			s.t.Errorf("the canary %s stands in %s", what, where)
		}
	}
}
