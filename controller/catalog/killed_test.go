package catalog

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"paddock/controller/etcdstore"
	"paddock/internal/errs"
	pb "paddock/proto/paddock/v1"
)

// publisherDir says to a child of this test where it is to publish until it is killed.
const publisherDir = "PADDOCK_TEST_PUBLISHER"

// TestKilled: kill -9 while publications and activations go on, again and again. What was acknowledged is there, and of the one
// in flight all or nothing: a pipeline and its functions, and every version with its code.
func TestKilled(t *testing.T) {
	if dir := os.Getenv(publisherDir); dir != "" {
		publishForEver(t, dir)
		return
	}
	dir, last := t.TempDir(), 0
	for round := range 3 {
		last = max(last, runPublisher(t, dir, last+8+3*round))
		checkPublished(t, dir, last)
	}
}

// publishForEver publishes the pipeline p of f and g, each as of i, activates the version i of pinned and says i, for i from where
// somebody left off.
func publishForEver(t *testing.T, dir string) {
	w := openKilled(t, dir)
	from := 0
	if _, ok := w.view.Tenant("acme"); !ok {
		w.tenant("acme", nil)
	}
	if f, ok := w.view.lookup("acme", "pinned"); ok {
		from = int(f.Newest)
	}
	for i := from + 1; i < MaxVersions; i++ {
		d, err := w.service.DeployFunction(t.Context(), "acme", Deployment{Name: "pinned", Source: fmt.Append(nil, i), KeepActive: true})
		must(t, err)
		_, err = w.service.PublishPipeline(t.Context(), "acme", NewPipeline{Name: "p", Steps: []*pb.PipelineStep{{Function: "f"}, {Function: "g"}}},
			[]Deployment{{Name: "f", Source: fmt.Append(nil, i)}, {Name: "g", Source: fmt.Append(nil, i)}})
		must(t, err)
		_, err = w.service.ActivateVersion(t.Context(), "acme", "pinned", d.Version.Number, 0, 0)
		must(t, err)
		fmt.Println("published", i)
	}
}

func openKilled(t *testing.T, dir string) *world {
	t.Helper()
	s, err := etcdstore.Embed(t.Context(), etcdstore.EmbedOptions{Dir: filepath.Join(dir, "etcd")})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return openWorld(t, s, dir)
}

// runPublisher kills a publisher once it has acknowledged number until, and returns the last that it has.
func runPublisher(t *testing.T, dir string, until int) (last int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), publisherDir+"="+dir)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	lines := bufio.NewScanner(out)
	said := ""
	for lines.Scan() {
		number, ok := strings.CutPrefix(lines.Text(), "published ")
		if !ok {
			said += lines.Text() + "\n"
			continue
		}
		if n, err := strconv.Atoi(number); err == nil {
			last = max(last, n)
		}
		if last >= until {
			_ = cmd.Process.Kill() // it goes on meanwhile
		}
	}
	_ = cmd.Wait()
	if last < until {
		t.Fatalf("the publisher came to %d of %d:\n%s", last, until, said)
	}
	return last
}

// checkPublished opens what a killed publisher left.
func checkPublished(t *testing.T, dir string, last int) {
	t.Run(fmt.Sprint("after ", last), func(t *testing.T) {
		w := openKilled(t, dir)
		r, err := w.view.ResolvePipeline("acme", "p", 0)
		must(t, err)
		f, err := w.view.Source(t.Context(), "acme", r.Steps[0].Code.Hash)
		must(t, err)
		g, err := w.view.Source(t.Context(), "acme", r.Steps[1].Code.Hash)
		must(t, err)
		n, err := strconv.Atoi(string(f))
		if err != nil || string(f) != string(g) || n < last || n > last+2 {
			t.Errorf("f is %s and g is %s; %d was acknowledged", f, g, last)
		}
		pinned, ok := w.view.lookup("acme", "pinned")
		if !ok || pinned.Active < int64(last) || pinned.Active > pinned.Newest {
			t.Errorf("%+v; %d was acknowledged", pinned, last)
		}
		for _, name := range []string{"f", "g", "pinned"} {
			one, _ := w.view.lookup("acme", name)
			for _, v := range one.Versions() {
				code, err := w.view.Source(t.Context(), "acme", v.Hash)
				if err != nil || string(code) != fmt.Sprint(v.Number) {
					t.Errorf("%s@%d is %q, %v", name, v.Number, code, err)
				}
			}
			if _, err := w.service.RollbackFunction(t.Context(), "acme", name, one.Revision-1); !errs.Is(err, errs.Conflict) {
				t.Errorf("%s: decided on what was before: %v", name, err)
			}
		}
	})
}
