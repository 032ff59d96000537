package archtest

import (
	"bufio"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// wallClock is what takes the monotonic reading off a time, after which a difference is one of wall clocks.
var wallClock = regexp.MustCompile(`\.Unix(Nano|Milli|Micro)?\(\)|time\.Unix(Milli|Micro)?\(|\.Round\(0\)`)

// wallClocks are the places where the wall clock is meant, with the reason. Deadlines, leases and lives of containers go by the
// monotonic clock: a host's time may jump by an hour.
var wallClocks = map[string]string{
	"cmd/paddock/output.go":         "shows times to people",
	"controller/catalog/records.go": "when a key was used last, for people",
	"internal/logging/handler.go":   "times of log lines",
	"internal/pki/source.go":        "times of files, compared for being the same",
	"pool/docker/image.go":          "ages of images, against Docker's own record of them",
	"pool/docker/settings.go":       "Docker's times, shown",
	"pool/docker/process.go":        "a deadline in the past, to end a read",
	"pool/link/listen.go":           "a deadline in the past, to end an accept or a read",
	"pool/link/logs.go":             "times of log lines by the agent's clock, believed as far as they can be true",
	"router/admit.go":               "calls of the last whole second, shown to people",
	"router/lane/conn.go":           "a deadline in the past, to end a read; the second of the Date header",
	"runtimes/node/rootfs.go":       "the time of every file of an image, always the same",
	"router/stream.go":              "a deadline in the past, to end a read",
}

// TestWallClockIsNamed: whoever takes a wall clock for anything says why.
func TestWallClockIsNamed(t *testing.T) {
	used := map[string]bool{}
	for _, p := range list(t) {
		layer := strings.TrimPrefix(p.ImportPath, module+"/")
		if top, _, _ := strings.Cut(layer, "/"); top == "test" || top == "bench" || top == "examples" || top == "proto" || top == "tools" || strings.HasSuffix(p.ImportPath, "test") {
			continue
		}
		for _, name := range p.GoFiles {
			path := layer + "/" + name
			f, err := os.Open(filepath.Join(p.Dir, name))
			if err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(f)
			for n := 1; lines.Scan(); n++ {
				code, _, _ := strings.Cut(lines.Text(), "//")
				if !wallClock.MatchString(code) {
					continue
				}
				if used[path] = true; wallClocks[path] == "" {
					t.Errorf("%s:%d uses the wall clock: %s\nmeasure with time.Since, or name the reason in wallClocks", path, n, strings.TrimSpace(code))
				}
			}
			f.Close()
		}
	}
	for path := range wallClocks {
		if !used[path] {
			t.Errorf("%s is listed and uses no wall clock", path)
		}
	}
}
