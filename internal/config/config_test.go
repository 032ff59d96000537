package config

import (
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
)

const example = "../../etc/paddock.example.yml"

// The example shows every setting with its default: as it stands it changes nothing, and no setting is missing from it.
func TestExampleFileIsTheDefaults(t *testing.T) {
	c := Defaults()
	if err := c.Read(example); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(c, Defaults()) {
		t.Errorf("the example differs from the defaults:\n%+v\n%+v", c, Defaults())
	}
	if err := c.Check(); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names(reflect.TypeFor[Config]()) {
		if !regexp.MustCompile(`(?m)^ *` + name + `:`).Match(text) {
			t.Errorf("the example does not show %s", name)
		}
	}
}

func names(t reflect.Type) (all []string) {
	for i := range t.NumField() {
		f := t.Field(i)
		all = append(all, f.Tag.Get("yaml"))
		if f.Type.Kind() == reflect.Struct {
			all = append(all, names(f.Type)...)
		}
	}
	return all
}

func TestFileOverDefaults(t *testing.T) {
	c := Defaults()
	err := c.Decode(strings.NewReader("engine: docker\npool:\n  min_ready: 9\n  memory_budget: 2 GiB\n"))
	if err != nil {
		t.Fatal(err)
	}
	if c.Engine != EngineDocker || c.Pool.MinReady != 9 || c.Pool.MemoryBudget != 2<<30 {
		t.Errorf("read %+v", c)
	}
	if c.Isolation != IsolationGVisor || c.Pool.CreateParallel != DefaultCreateParallel {
		t.Errorf("what the file does not say lost its default: %+v", c)
	}
	if err := c.Decode(strings.NewReader("")); err != nil {
		t.Errorf("an empty file: %v", err)
	}
}

func TestBadFiles(t *testing.T) {
	for text, want := range map[string]string{
		"min_redy: 3":                        `line 1: there is no setting "min_redy" here`,
		"pool: {min_ready: many}":            "line 1: many is not a whole number",
		"strict: {a: b}":                     "line 1: what stands here is not true or false",
		"pool: {memory_budget: 8 parsecs}":   "8 parsecs",
		"pool: {memory_budget: [1]}":         "line 1",
		"engine: oci\nengine: docker":        "engine",
		"http: 127.0.0.1:1\n  grpc: nothing": "yaml",
	} {
		c := Defaults()
		if err := c.Decode(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v does not name %q", text, err, want)
		}
	}
	c := Defaults()
	missing := filepath.Join(t.TempDir(), "none.yml")
	if err := c.Read(missing); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("missing file: %v", err)
	}
}

func TestCheckNamesTheSetting(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"engine \"podman\"":              func(c *Config) { c.Engine = "podman" },
		"isolation \"none\"":             func(c *Config) { c.Isolation = "none" },
		"data-dir":                       func(c *Config) { c.DataDir = "" },
		"tls-cert":                       func(c *Config) { c.TLS.Key = "k.pem" },
		"max_connections -1":             func(c *Config) { c.MaxConnections = -1 },
		"max_connections_per_address -2": func(c *Config) { c.MaxConnectionsPerAddress = -2 },
		"uid_base 1000":                  func(c *Config) { c.UIDBase = 1000 },
		"uid_base 4294967000":            func(c *Config) { c.UIDBase = 4294967000 },
		"min-ready -1":                   func(c *Config) { c.Pool.MinReady = -1 },
		"max_ready 2":                    func(c *Config) { c.Pool.MaxReady = 2 },
		"max-containers 3":               func(c *Config) { c.Pool.MaxContainers = 3 },
		"create_parallel":                func(c *Config) { c.Pool.CreateParallel = 0 },
		"log format":                     func(c *Config) { c.Log.Format = "xml" },
		"log level":                      func(c *Config) { c.Log.Level = "loud" },
		"host:port":                      func(c *Config) { c.HTTP = "8080" },
		"not a port":                     func(c *Config) { c.GRPC = "127.0.0.1:99999" },
		"maxima.memory":                  func(c *Config) { c.Maxima.Memory = 16 << 20 },
		"maxima.timeout":                 func(c *Config) { c.Maxima.Timeout = 0 },
		"maxima.rate":                    func(c *Config) { c.Maxima.Rate = math.NaN() },
		"no TLS":                         func(c *Config) { c.HTTP = "0.0.0.0:8080" },
		"grpc \":8081\"":                 func(c *Config) { c.GRPC = ":8081" },
	} {
		c := Defaults()
		change(&c)
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v does not say %q", err, want)
		}
	}
}

func TestListenersBeyondThisMachineNeedTLSOrALoudWord(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0", "localhost:0", "127.9.9.9:1", "[::ffff:127.0.0.1]:1"} {
		c := Defaults()
		c.HTTP = addr
		if err := c.Check(); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
	for _, addr := range []string{":0", "0.0.0.0:0", "[::]:0", "192.168.1.1:80", "example.com:80"} {
		c := Defaults()
		c.HTTP = addr
		if c.Check() == nil {
			t.Errorf("%s without TLS was taken", addr)
		}
		c.Insecure = true
		if err := c.Check(); err != nil {
			t.Errorf("%s with insecure: %v", addr, err)
		}
		c.Insecure, c.TLS = false, TLS{Cert: "c", Key: "k"}
		if err := c.Check(); err != nil {
			t.Errorf("%s with TLS: %v", addr, err)
		}
	}
}

func TestBytes(t *testing.T) {
	for text, want := range map[string]Bytes{
		"0": 0, "123": 123, "8GiB": 8 << 30, "8 gib": 8 << 30, "8g": 8 << 30, "1.5MiB": 3 << 19, "10b": 10, "2GB": 2 << 30,
	} {
		if got, err := ParseBytes(text); err != nil || got != want {
			t.Errorf("%q is %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-1", "lots", "1e40", "NaN", "GiB", "9999999TiB"} {
		if got, err := ParseBytes(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
	for _, b := range []Bytes{0, 5, 1 << 10, 3 << 20, 8 << 30, 1<<30 + 1} {
		if back, err := ParseBytes(b.String()); err != nil || back != b {
			t.Errorf("%d → %s → %d, %v", b, b, back, err)
		}
	}
}
