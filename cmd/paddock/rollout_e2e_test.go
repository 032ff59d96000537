package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"paddock/internal/testenv"
	pb "paddock/proto/paddock/v1"
	"paddock/runtimes/node"
)

// formerAgent is the agent as a version before had it, from
// `git archive COMMIT:runtimes/node $(git ls-tree --name-only COMMIT:runtimes/node | grep '\.js$') | gzip -9n`. When a version is
// released, its agent becomes this file's once the next one begins.
//
//go:embed testdata/former-agent.tar.gz
var formerAgent []byte

func formerAgentFiles(t *testing.T) map[string]string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(formerAgent))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = string(text)
	}
}

// ownImage is the digest of the one image that a first start has made in a directory.
func ownImage(t *testing.T, images string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(images, strings.Repeat("?", 64)))
	if err != nil || len(found) != 1 {
		t.Fatalf("images in %s: %v, %v", images, found, err)
	}
	return filepath.Base(found[0])
}

// otherImage makes an image that has other files of the agent than one that is there, and returns its digest.
func otherImage(t *testing.T, images, like string, agent map[string]string) string {
	t.Helper()
	dir := filepath.Join(images, "new")
	if out, err := exec.Command("cp", "-al", filepath.Join(images, like), dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for name, text := range agent {
		path := filepath.Join(dir, "rootfs", "paddock", name)
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) { // it is the other image's, too
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	digest, err := node.Sum(t.Context(), filepath.Join(dir, "rootfs"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir, filepath.Join(images, digest)); err != nil {
		t.Fatal(err)
	}
	if err := node.Keep(images, digest); err != nil {
		t.Fatal(err)
	}
	return digest
}

// runtimeOf is how the images stand, by `paddock runtime ls`.
func (s *site) runtimeOf(t *testing.T) *pb.Runtime {
	t.Helper()
	out := &pb.ListRuntimesResponse{}
	if err := protojson.Unmarshal([]byte(s.cli("runtime", "ls", "--json").want(t, 0, "", "").out), out); err != nil || len(out.GetRuntimes()) != 1 {
		t.Fatalf("%v, %v", out, err)
	}
	return out.GetRuntimes()[0]
}

// imageOf is an image at a controller; nil where there is none.
func imageOf(n *pb.RuntimeNode, digest string) *pb.ImageStatus {
	for _, s := range n.GetImages() {
		if s.GetDigest() == digest {
			return s
		}
	}
	return nil
}

// onlyOf says whether there are containers, and all of them of one image.
func onlyOf(n *pb.RuntimeNode, digest string) bool {
	s := imageOf(n, digest)
	return s.GetReady() > 0 && s.GetPercent() == 100 && !slices.ContainsFunc(n.GetImages(), func(o *pb.ImageStatus) bool {
		return o.GetDigest() != digest && o.GetReady()+o.GetAssigned() > 0
	})
}

// knocks is constant calls of several tenants, of functions and of pipelines.
type knocks struct {
	t      *testing.T
	s      *site
	key    string
	stop   chan struct{}
	work   sync.WaitGroup
	calls  atomic.Int64
	mu     sync.Mutex
	failed []string
}

func (s *site) knock(t *testing.T) *knocks {
	t.Helper()
	return &knocks{t: t, s: s, key: strings.TrimSpace(string(read(t, filepath.Join(s.data, "operator.key")))), stop: make(chan struct{})}
}

// admit makes a tenant that calls ten times a second from now on.
func (k *knocks) admit(tenant string) {
	k.t.Helper()
	k.s.cli("tenants", "create", tenant).want(k.t, 0, "", "")
	k.s.cli("deploy", source(k.t, "module.exports = async n => { await new Promise(r => setTimeout(r, n)); return n }"), "--name", "wait", "--tenant", tenant).want(k.t, 0, "", "")
	dir := filepath.Join(k.t.TempDir(), "login")
	writeInto(k.t, dir, "pipeline.yaml", "name: login\nkind: rule\nsteps: [{file: greet.js}]\n")
	writeInto(k.t, dir, "greet.js", "function (user, context, callback) { user.hello = user.name; callback(null, user, context); }\n")
	k.s.cli("publish", dir, "--tenant", tenant).want(k.t, 0, "", "")
	k.work.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for n := 0; ; n++ {
			k.work.Go(func() { k.call(tenant, n) })
			select {
			case <-k.stop:
				return
			case <-tick.C:
			}
		}
	})
}

func (k *knocks) call(tenant string, n int) {
	path, body, want := "functions/wait/invoke", fmt.Sprint(n%4*100), fmt.Sprint(n%4*100)
	if n%5 == 0 {
		path, body, want = "pipelines/login/invoke", `{"user":{"name":"Ada"},"context":{}}`, `"hello":"Ada"`
	}
	status, answer, err := k.ask(path, tenant, body)
	k.calls.Add(1)
	if err == nil && status == http.StatusOK && strings.Contains(answer, want) {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.failed = append(k.failed, fmt.Sprintf("%s of %s: %d %.300s %v", path, tenant, status, answer, err))
}

func (k *knocks) ask(path, tenant, body string) (int, string, error) {
	req, err := http.NewRequest(http.MethodPost, k.s.HTTP+"/v1/"+path+"?timeout=30s", strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Authorization", "Bearer "+k.key)
	req.Header.Set("Paddock-Tenant", tenant)
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	return res.StatusCode, string(answer), err
}

// end stops the calls and wants none to have failed.
func (k *knocks) end() {
	k.t.Helper()
	close(k.stop)
	k.work.Wait()
	if len(k.failed) > 0 {
		k.t.Errorf("%d of %d calls failed: %s", len(k.failed), k.calls.Load(), strings.Join(k.failed[:min(len(k.failed), 5)], "\n"))
	}
	k.t.Logf("%d calls", k.calls.Load())
}

// A runtime image goes out under load by canary, rolling, done; its agent is the former version's, and works beside this one's. One
// command goes back within 15 seconds. Images whose agents exit, or speak what this program does not, go back by themselves. No call fails.
func TestImagesGoOutAndBack(t *testing.T) {
	s := newSite(t, "oci", "runc", "--min-ready", "3")
	s.start()
	images := filepath.Join(s.data, "images")
	own := ownImage(t, images)
	former := otherImage(t, images, own, formerAgentFiles(t))
	k := s.knock(t)
	for _, tenant := range []string{"ant", "bee"} {
		k.admit(tenant)
	}
	s.goesOut(t, k, own, former)

	began := time.Now()
	s.cli("runtime", "rollback").want(t, 0, "image "+own[:12], "")
	testenv.Await(t, "all containers are of the image before", func() bool { return onlyOf(s.runtimeOf(t).GetNodes()[0], own) })
	if took := time.Since(began); took > testenv.Patience(15*time.Second) {
		t.Errorf("one step back took %s", took)
	} else {
		t.Logf("one step back took %s", took)
	}
	exits := otherImage(t, images, own, map[string]string{"agent.js": "process.exit(1)\n"})
	// Two are made at a time: one more than is borne may have failed.
	s.goesBack(t, own, exits, " containers of it, and started 0")
	speaks := strings.Replace(formerAgentFiles(t)["link.js"], `{"protocol":1,`, `{"protocol":99,`, 1)
	s.goesBack(t, own, otherImage(t, images, own, map[string]string{"link.js": speaks}), " containers of it, and started 0", "--max-start-failures", "1")
	k.end()
	s.tellsOfRollouts(t)
}

// goesOut rolls an image out, and holds it for a while where the canary is.
func (s *site) goesOut(t *testing.T, k *knocks, own, image string) {
	t.Helper()
	s.waitForImage(t, image)
	s.cli("runtime", "rollout", image[:12], "--canary", "50", "--drain", "--min-calls", "20").want(t, 0, "canary", "")
	testenv.Await(t, "half of the containers are of the image", func() bool { return imageOf(s.runtimeOf(t).GetNodes()[0], image).GetPercent() == 50 })
	s.cli("runtime", "pause").want(t, 0, "paused", "")
	for n, both := 0, false; n < 8 && !both; n++ { // the canary moves no tenant: it gets those that come
		tenant := fmt.Sprintf("new%d", n)
		k.admit(tenant)
		testenv.Await(t, "the tenant is served", func() bool {
			at := s.runtimeOf(t).GetNodes()[0]
			return imageOf(at, own).GetAssigned()+imageOf(at, image).GetAssigned() >= int32(n+3)
		})
		both = imageOf(s.runtimeOf(t).GetNodes()[0], image).GetAssigned() > 0
	}
	calls := func(digest string) int64 { return imageOf(s.runtimeOf(t).GetNodes()[0], digest).GetCalls() }
	atOwn, atNew := calls(own), calls(image)
	testenv.Await(t, "both images serve beside each other", func() bool { return calls(own) > atOwn+20 && calls(image) > atNew+20 })
	s.cli("runtime", "resume").want(t, 0, "canary", "")
	s.cli("runtime", "status", "--follow").want(t, 0, "done", "")
	at := s.runtimeOf(t)
	for _, digest := range []string{own, image} {
		if is := imageOf(at.GetNodes()[0], digest); is.GetFailed() != 0 || is.GetErrors() != 0 || is.GetStartFailures() != 0 {
			t.Errorf("%v", is)
		}
	}
	if at.GetImage() != image || !onlyOf(at.GetNodes()[0], image) {
		t.Errorf("it is done: %v", at)
	}
}

func (s *site) waitForImage(t *testing.T, image string) {
	t.Helper()
	testenv.Await(t, "the image was read", func() bool { return imageOf(s.runtimeOf(t).GetNodes()[0], image).GetPresent() })
}

// goesBack rolls an image out that cannot be: it goes back by itself, and says why.
func (s *site) goesBack(t *testing.T, own, image, why string, flags ...string) {
	t.Helper()
	s.waitForImage(t, image)
	s.cli(append([]string{"runtime", "rollout", image[:12], "--watch", "10m"}, flags...)...).want(t, 0, "canary", "")
	s.cli("runtime", "status", "--follow").want(t, exitPlatform, why, "rolled back")
	testenv.Await(t, "all containers are of the image before", func() bool { return onlyOf(s.runtimeOf(t).GetNodes()[0], own) })
}

// tellsOfRollouts looks for them in the audit log and, as the alerts would, in the metrics.
func (s *site) tellsOfRollouts(t *testing.T) {
	t.Helper()
	log := s.cli("audit", "tail", "--action", "rollout.", "--json").want(t, 0, "", "").out
	var steps []string
	for _, m := range regexp.MustCompile(`"rollout\.([a-z_]+)"`).FindAllStringSubmatch(log, -1) {
		steps = append(steps, m[1])
	}
	for _, want := range []string{"canary", "rolling", "done", "rolled_back"} {
		if !slices.Contains(steps, want) {
			t.Errorf("the audit log has the steps %q, and not %s", steps, want)
		}
	}
	req, err := http.NewRequest(http.MethodGet, s.HTTP+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	exported := get(t, req, http.StatusOK)
	for _, a := range alerts(t) {
		for _, name := range series.FindAllString(a.Expr, -1) {
			if !strings.Contains(exported, "\n"+name+" ") {
				t.Errorf("%s asks for %s, which the service does not export", a.Alert, name)
			}
		}
	}
	for _, line := range []string{`paddock_rollouts_ended_total{result="done"} 1`, `paddock_rollouts_ended_total{result="rolled_back"} 2`, `paddock_rollout_state{state="rolled_back"} 1`} {
		if !strings.Contains(exported, "\n"+line+"\n") {
			t.Errorf("the metrics do not have %s", line)
		}
	}
}
