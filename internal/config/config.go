// Package config holds what an operator sets: one struct, its defaults, the strict reading of a YAML file and the checks
// that need no look at the machine. It reads no flags and no environment; commands put flags over the file over Defaults.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"
)

// Defaults of the settings; why each is what it is stands at its field.
const (
	DefaultDataDir        = "/var/lib/paddock"
	DefaultHTTP           = "127.0.0.1:8080"
	DefaultGRPC           = "127.0.0.1:8081"
	DefaultMinReady       = 4
	DefaultCreateParallel = 2
	DefaultUIDBase        = 2_000_000_000
	DefaultMemoryPercent  = 60
	DefaultRegion         = "local"
)

// Engines and isolations that Engine and Isolation may name.
const (
	EngineOCI       = "oci"
	EngineDocker    = "docker"
	IsolationGVisor = "gvisor"
	IsolationRunc   = "runc"
)

// Config is all that an operator sets. Field tags are the names in the file.
type Config struct {
	// DataDir holds keys, the store, code and runtime images. One paddock at a time.
	DataDir string `yaml:"data_dir"`
	// CacheDir keeps downloads (Node, its modules) between builds of the runtime image; several data directories may share
	// one. "" is inside of DataDir.
	CacheDir string `yaml:"cache_dir"`
	// SandboxCA is a PEM file of private certificate authorities that code in sandboxes trusts besides the host's bundle. "" is
	// the bundle that Node brings.
	SandboxCA string `yaml:"sandbox_ca"`
	// HTTP and GRPC are the listeners, "host:port"; port 0 takes a free one.
	HTTP string `yaml:"http"`
	GRPC string `yaml:"grpc"`
	// MaxConnections bounds the connections of each listener. 0 is 20,000, or two fifths of the descriptors that the process may
	// open if that is less: sandboxes need some, too. MaxConnectionsPerAddress bounds those from one IPv4 address or one IPv6
	// /64 network; 0 is a quarter of MaxConnections. Behind a proxy, whose address is everybody's, set both alike.
	MaxConnections           int `yaml:"max_connections"`
	MaxConnectionsPerAddress int `yaml:"max_connections_per_address"`
	// ReadyFile, if set, is written once the first sandbox is warm and removed at exit.
	ReadyFile string `yaml:"ready_file"`
	// Insecure allows a listener that is not loopback without TLS: keys and code then travel in the clear.
	Insecure bool `yaml:"insecure"`
	TLS      TLS  `yaml:"tls"`

	// Engine is "oci" (runsc or runc directly) or "docker"; Isolation is "gvisor" or "runc".
	Engine    string `yaml:"engine"`
	Isolation string `yaml:"isolation"`
	// Runtime is the runsc or runc to use; "" looks beside this program, in bin/ beside it, then in PATH.
	Runtime string `yaml:"runtime"`
	// Strict refuses runtimes with known holes instead of warning.
	Strict bool   `yaml:"strict"`
	Docker Docker `yaml:"docker"`

	Pool   Pool   `yaml:"pool"`
	Maxima Maxima `yaml:"maxima"`
	// UIDBase is the first of 65,536 host user ids that sandboxes run as; nothing else on the machine may use them. The
	// default is far above what distributions and /etc/subuid hand out.
	UIDBase uint32 `yaml:"uid_base"`
	// Region is what routers prefer to stay in.
	Region string `yaml:"region"`
	// Cluster is for `paddock controller` and `paddock router`; `paddock up` needs nothing of it.
	Cluster Cluster `yaml:"cluster"`
	Log     Log     `yaml:"log"`
}

// TLS is the certificate of both listeners; both files or none.
type TLS struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// Docker says how to reach a Docker engine.
type Docker struct {
	// Host is "unix:///var/run/docker.sock" or the like; "" is the environment's or Docker's own default.
	Host string `yaml:"host"`
}

// Pool sizes the pool of warm sandboxes.
type Pool struct {
	// MinReady warm sandboxes are kept whatever the demand; MaxReady bounds what demand may raise it to (0: by budget).
	MinReady int `yaml:"min_ready"`
	MaxReady int `yaml:"max_ready"`
	// MaxContainers bounds all of them together, assigned ones too (0: by budget).
	MaxContainers int `yaml:"max_containers"`
	// MemoryBudget is what all sandboxes together may use (0: 60 % of the machine's memory).
	MemoryBudget Bytes `yaml:"memory_budget"`
	// CreateParallel sandboxes are started at once; more than the machine has cores only slows each of them.
	CreateParallel int `yaml:"create_parallel"`
}

// Log is the operator's log on standard error.
type Log struct {
	// Format is "text", "json" or "auto": text on a terminal, else JSON.
	Format string `yaml:"format"`
	// Level is "debug", "info", "warn" or "error".
	Level string `yaml:"level"`
}

// Defaults returns the Config of an operator who set nothing.
func Defaults() Config {
	return Config{
		DataDir: DefaultDataDir, HTTP: DefaultHTTP, GRPC: DefaultGRPC,
		Engine: EngineOCI, Isolation: IsolationGVisor,
		Pool:    Pool{MinReady: DefaultMinReady, CreateParallel: DefaultCreateParallel},
		Maxima:  defaultMaxima(),
		UIDBase: DefaultUIDBase, Region: DefaultRegion,
		Cluster: Cluster{Etcd: Etcd{Endpoints: []string{}}, Listen: DefaultListen, Status: DefaultStatus},
		Log:     Log{Format: "auto", Level: "info"},
	}
}

// Read lays the YAML file at path over c. A name it does not know is an error that says where.
func (c *Config) Read(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("config file: %w", err)
	}
	if err := c.Decode(bytes.NewReader(b)); err != nil {
		return fmt.Errorf("config file %s: %w", path, err)
	}
	return nil
}

// Decode lays YAML over c, strictly. An empty document changes nothing.
func (c *Config) Decode(r io.Reader) error {
	d := yaml.NewDecoder(r)
	d.KnownFields(true)
	if err := d.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return plain(err)
	}
	return nil
}

// plain says in an operator's words what the decoder says in Go's.
func plain(err error) error {
	var wrong *yaml.TypeError
	if !errors.As(err, &wrong) {
		return err
	}
	all := make([]error, len(wrong.Errors))
	for i, said := range wrong.Errors {
		said = unknownField.ReplaceAllString(said, `there is no setting "$1" here`)
		if m := wrongType.FindStringSubmatch(said); m != nil {
			said = m[1] + orDefault(strings.Trim(m[2], " `"), "what stands here") + " is not " + orDefault(wanted[m[3]], "what belongs here")
		}
		all[i] = errors.New(said)
	}
	return errors.Join(all...)
}

var (
	unknownField = regexp.MustCompile(`field (\S+) not found in type \S+`)
	wrongType    = regexp.MustCompile("^(.*)cannot unmarshal !!\\w+( `.*`)? into (\\S+)$")
)

// wanted says what a Go type is to an operator.
var wanted = map[string]string{
	"int": "a whole number", "int64": "a whole number", "uint32": "a whole number", "float64": "a number", "time.Duration": "a time such as 30s", "bool": "true or false", "string": "text", "config.Bytes": "a size such as 8GiB",
}

func orDefault(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

// Check returns an error that names the first setting that cannot work, and what can.
func (c *Config) Check() error {
	switch {
	case c.DataDir == "":
		return errors.New("data-dir is empty: name a directory, for example " + DefaultDataDir)
	case c.Engine != EngineOCI && c.Engine != EngineDocker:
		return fmt.Errorf("engine %q: use oci or docker", c.Engine)
	case c.Isolation != IsolationGVisor && c.Isolation != IsolationRunc:
		return fmt.Errorf("isolation %q: use gvisor or runc", c.Isolation)
	case (c.TLS.Cert == "") != (c.TLS.Key == ""):
		return errors.New("tls-cert and tls-key belong together: give both or none")
	case c.MaxConnections < 0:
		return fmt.Errorf("max_connections %d: use 0 (the default) or more", c.MaxConnections)
	case c.MaxConnectionsPerAddress < 0:
		return fmt.Errorf("max_connections_per_address %d: use 0 (a quarter of max_connections) or more", c.MaxConnectionsPerAddress)
	case c.UIDBase < 100_000:
		return fmt.Errorf("uid_base %d: use at least 100000, below live the machine's own users", c.UIDBase)
	case uint64(c.UIDBase)+1<<16 > 1<<32-2:
		return fmt.Errorf("uid_base %d: 65,536 ids must fit above it, use at most %d", c.UIDBase, uint32(1<<32-2-1<<16))
	}
	if err := c.Pool.check(); err != nil {
		return err
	}
	if err := c.Maxima.check(); err != nil {
		return err
	}
	if err := c.Log.check(); err != nil {
		return err
	}
	if err := c.checkListener("http", c.HTTP); err != nil {
		return err
	}
	return c.checkListener("grpc", c.GRPC)
}

func (p Pool) check() error {
	switch {
	case p.MinReady < 0:
		return fmt.Errorf("min-ready %d: use 0 or more", p.MinReady)
	case p.MaxReady < 0:
		return fmt.Errorf("max_ready %d: use 0 (by budget) or more", p.MaxReady)
	case p.MaxReady > 0 && p.MaxReady < p.MinReady:
		return fmt.Errorf("max_ready %d is below min-ready %d", p.MaxReady, p.MinReady)
	case p.MaxContainers < 0:
		return fmt.Errorf("max-containers %d: use 0 (by budget) or more", p.MaxContainers)
	case p.MaxContainers > 0 && p.MaxContainers < p.MinReady:
		return fmt.Errorf("max-containers %d is below min-ready %d", p.MaxContainers, p.MinReady)
	case p.MemoryBudget < 0:
		return fmt.Errorf("memory-budget %d: use 0 (%d %% of the machine) or more", p.MemoryBudget, DefaultMemoryPercent)
	case p.CreateParallel < 1:
		return fmt.Errorf("create_parallel %d: use 1 or more", p.CreateParallel)
	}
	return nil
}

func (l Log) check() error {
	if l.Format != "auto" && l.Format != "text" && l.Format != "json" {
		return fmt.Errorf("log format %q: use auto, text or json", l.Format)
	}
	switch l.Level {
	case "debug", "info", "warn", "error":
		return nil
	}
	return fmt.Errorf("log level %q: use debug, info, warn or error", l.Level)
}

// checkListener refuses addresses that cannot be listened on, and such as strangers can reach without TLS.
func (c *Config) checkListener(name, addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return fmt.Errorf("%s %q: use host:port, for example 127.0.0.1:8080 (port 0 takes a free one)", name, addr)
	}
	if n, err := net.LookupPort("tcp", port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("%s %q: %q is not a port", name, addr, port)
	}
	if c.TLS.Cert != "" || c.Insecure || isLoopback(host) {
		return nil
	}
	return fmt.Errorf("%s %q can be reached from other machines and has no TLS: API keys and code would travel in the clear; "+
		"give --tls-cert and --tls-key, listen on 127.0.0.1, or say --insecure where something else encrypts", name, addr)
}

func isLoopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
